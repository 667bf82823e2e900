package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Work is what the same work took on each side, in nanoseconds, round by round.
type Work struct {
	Name, Target string
	Samples      map[string][]float64
}

// speeds are those of a side as shares of bare.
func (w *Work) speeds(side string) (list []float64) {
	for i, ns := range w.Samples[side] {
		list = append(list, w.Samples[sideBare][i]/ns)
	}
	return list
}

// The sides. Kernel overlayfs without any sandbox is what nobody's overlay can be faster than.
const (
	sidePlain  = "sandbox, no branch"
	sideBranch = "branch"
	sideKernel = "overlayfs alone"
	sideFuse   = "fuse-overlayfs"
	sideRust   = "sandlock (Rust), workdir"
	sideBwrap  = "bwrap --overlay"
)

var workSides = []string{sideBare, sidePlain, sideBranch, sideKernel, sideFuse, sideRust, sideBwrap}

// Of peers, work that took longer than slowWork is not repeated, and what takes longer than longestWork is ended.
const (
	slowWork    = 2e9 // ns
	longestWork = 5 * time.Second
)

// workSize says how much is done.
type workSize struct{ rounds, files, packages, created, calls, appends int }

var workFull = workSize{rounds: 3, files: 10_000, packages: 40, created: 30_000, calls: 100_000, appends: 5000}

// trees are what is worked on. What a side leaves changed is put back after each run.
var workTrees = []string{"bare", "plain", "lower"}

// measureWork has everything take turns. Before each run all that is dirty is written, lest a run pays for the one before it.
func (w workshop) measureWork(size workSize) (all []Work, gaps []string, err error) {
	if err := w.plantTrees(size); err != nil {
		return nil, nil, err
	}
	work := w.path("probe/work")
	count := func(n int) string { return fmt.Sprint(n) }
	plans := []struct {
		name, target string
		argv         []string
		before       func(round int) error
		after        []string // puts a tree back
	}{
		{"git checkout", "≥ 0.9", []string{work, "run", "git", "checkout", "-q", "full"}, nil, []string{"git", "checkout", "-q", "empty"}},
		{"go build", "≥ 0.9", []string{work, "run", goTool(), "build", "-o", "tmp/program", "./module"}, w.editModules(size.packages), nil},
		{"tar x", "≥ 0.9", []string{work, "run", "tar", "-xf", w.place("tree.tar")}, nil, []string{"rm", "-r", "tarred"}},
		{"create files", "≥ 0.9", []string{work, "tree", "modules", count(size.created), "created"}, nil, []string{"rm", "-r", "modules"}},
		{"stat", "≥ 0.9", []string{work, "stat", "files", count(size.calls)}, nil, nil},
		{"open, read, close", "≥ 0.9", []string{work, "read", "files", count(size.calls)}, nil, nil},
		{"append to files that are there", "", []string{work, "append", "files", count(size.appends)}, nil, nil},
	}
	if !bwrapOverlays() {
		gaps = append(gaps, sideBwrap+" (this bwrap has no --overlay)")
	}
	for _, plan := range plans {
		missing := map[string]bool{sideBwrap: !bwrapOverlays()}
		row := Work{Name: plan.name, Target: plan.target, Samples: map[string][]float64{}}
		for round := range size.rounds {
			if plan.before != nil {
				if err := plan.before(round); err != nil {
					return nil, nil, err
				}
			}
			for _, side := range workSides {
				if missing[side] || peerSide(side) && len(row.Samples[side]) > 0 && row.Samples[side][0] > slowWork {
					continue
				}
				tree, prefix := w.workSide(side)
				if err := emptied(os.Getuid(), w.place("storage"), w.place("upper"), w.place("layer")); err != nil {
					return nil, nil, err
				}
				unix.Sync()
				limit := time.Hour
				if peerSide(side) {
					limit = longestWork
				}
				ns, err := measureIn(tree, join(prefix, plan.argv), limit)
				if err != nil && peerSide(side) {
					missing[side] = true
					gaps = append(gaps, fmt.Sprintf("%s (%s: %.300s)", side, plan.name, err))
					continue
				}
				if err != nil {
					return nil, nil, fmt.Errorf("%s, %s: %w", plan.name, side, err)
				}
				row.Samples[side] = append(row.Samples[side], ns)
				if plan.after != nil && (side == sideBare || side == sidePlain) {
					if _, err := output(tree, plan.after); err != nil {
						return nil, nil, err
					}
				}
			}
		}
		all = append(all, row)
	}
	return all, gaps, nil
}

func peerSide(side string) bool { return side != sideBare && side != sidePlain && side != sideBranch }

// workSide returns the tree that a side works on, and what runs its command.
func (w workshop) workSide(side string) (tree string, prefix []string) {
	lower, upper, layer, storage := w.place("lower"), w.place("upper"), w.place("layer"), w.place("storage")
	// In a mount namespace, and in a PID namespace that the command is the init of: fuse-overlayfs ends with it.
	overlay := func(mount string) []string {
		unshare := []string{"unshare", "-mpf", "--kill-child"}
		if os.Getuid() != 0 {
			unshare = append(unshare, "-Ur")
		}
		return append(unshare, "sh", "-ec", mount+` -o "lowerdir=$1,upperdir=$2,workdir=$3" "$1"; cd "$1"; shift 3; exec "$@"`, "sh", lower, upper, layer)
	}
	switch side {
	case sideBare:
		return w.place("bare"), nil
	case sidePlain:
		return w.place("plain"), w.branched("plain", w.place("plain"), storage)
	case sideBranch:
		return lower, w.branched("branch", lower, storage)
	case sideKernel:
		return lower, overlay("mount -t overlay overlay")
	case sideFuse:
		return lower, overlay("fuse-overlayfs")
	case sideRust:
		return lower, []string{w.path("bin/sandlock"), "run", "-r", "/usr", "-r", "/lib", "-r", "/lib64", "-r", "/bin", "-r", "/etc", "-r", "/proc", "-r", w.out,
			"-w", lower, "-w", "/dev/null", "-w", "/tmp", "--workdir", lower, "--cwd", lower, "--fs-storage", storage, "--on-exit", "abort", "--"}
	}
	return lower, join(bwrapped(lower), []string{"--overlay-src", lower, "--overlay", upper, layer, lower, "--chdir", lower, "--"})
}

// measureIn runs in a tree what prints "value N".
func measureIn(tree string, argv []string, limit time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	text, err := outputOf(ctx, tree, argv)
	if ctx.Err() != nil {
		return 0, fmt.Errorf("more than %v", limit)
	}
	if err != nil {
		return 0, err
	}
	return value(text)
}

// output runs a command in a tree, with all that Git and Go write kept in it.
func output(tree string, argv []string) (string, error) {
	return outputOf(context.Background(), tree, argv)
}

func outputOf(ctx context.Context, tree string, argv []string) (string, error) {
	cmd := commandIn(ctx, tree, argv)
	var said strings.Builder
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %.300s", filepath.Base(argv[0]), err, strings.TrimSpace(said.String()))
	}
	return string(text), nil
}

func commandIn(ctx context.Context, tree string, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second // what it has started may hold its output
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "HOME="+tree, "GOCACHE="+tree+"/cache", "GOTMPDIR="+tree+"/tmp", "GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off",
		"GOTELEMETRY=off", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@localhost", "GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@localhost")
	return cmd
}

func goTool() string {
	path, err := exec.LookPath("go")
	if err != nil {
		return "go"
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path
}

// plantTrees makes the trees: a repository with an empty branch and a full one, files, a module with the library that it needs
// built, and an archive of the files.
func (w workshop) plantTrees(size workSize) error {
	bare := w.place("bare")
	for _, dir := range []string{"files", "module", "tmp", "cache"} {
		if err := os.MkdirAll(filepath.Join(bare, dir), 0o755); err != nil {
			return err
		}
	}
	n := fmt.Sprint(size.files)
	steps := [][]string{
		{"git", "init", "-q", "."},
		{"git", "commit", "-q", "--allow-empty", "-m", "empty"},
		{"git", "branch", "-m", "empty"},
		{"git", "checkout", "-q", "-b", "full"},
		{w.path("probe/work"), "tree", "tracked", n, "tracked"},
		{"git", "add", "tracked"},
		{"git", "-c", "gc.auto=0", "commit", "-q", "-m", "full"},
		{"git", "gc", "-q"},
		{"git", "checkout", "-q", "empty"},
		{w.path("probe/work"), "tree", "files", n, "there before"},
		{"cp", "-r", "files", "tarred"},
		{"tar", "-cf", w.place("tree.tar"), "tarred"},
		{"rm", "-r", "tarred"},
	}
	for _, argv := range steps {
		if _, err := output(bare, argv); err != nil {
			return err
		}
	}
	if err := writeModule(filepath.Join(bare, "module"), size.packages, -1); err != nil {
		return err
	}
	// In the parent's folder, as everything else: the module is named by its path.
	if err := os.WriteFile(filepath.Join(bare, "go.mod"), []byte("module bench\n\ngo 1.24\n"), 0o644); err != nil {
		return err
	}
	if _, err := output(bare, []string{goTool(), "build", "-o", "tmp/program", "./module"}); err != nil {
		return err
	}
	for _, tree := range workTrees[1:] {
		if err := run("cp", "-a", bare, w.place(tree)); err != nil {
			return err
		}
	}
	return nil
}

// editModules changes all packages in all trees, so that each round has all of them to compile.
func (w workshop) editModules(packages int) func(round int) error {
	return func(round int) error {
		for _, tree := range workTrees {
			if err := writeModule(filepath.Join(w.place(tree), "module"), packages, round); err != nil {
				return err
			}
		}
		return nil
	}
}

// writeModule writes a program of many packages.
func writeModule(dir string, packages, round int) error {
	var imports, calls strings.Builder
	for p := range packages {
		name := fmt.Sprintf("p%d", p)
		fmt.Fprintf(&imports, "\t%q\n", "bench/module/"+name)
		fmt.Fprintf(&calls, "\tfmt.Println(%s.F0(%d))\n", name, p)
		var text strings.Builder
		fmt.Fprintf(&text, "package %s\n\nimport \"strings\"\n\nconst round = %d\n", name, round)
		for f := range 30 {
			fmt.Fprintf(&text, "\nfunc F%d(n int) string {\n\tvar b strings.Builder\n\tfor i := range n + round {\n\t\tif i%%%d == 0 {\n\t\t\tb.WriteString(\"%d\")\n\t\t}\n\t}\n\treturn strings.ToUpper(b.String())\n}\n", f, f+2, f)
		}
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name, name+".go"), []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	program := "package main\n\nimport (\n\t\"fmt\"\n" + imports.String() + ")\n\nfunc main() {\n" + calls.String() + "}\n"
	return os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o644)
}
