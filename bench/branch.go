package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Branches are what it costs to keep changes apart: to start, to work there, and to apply them.
type Branches struct {
	Ground  string // the file system of the trees
	Starts  []ViewStart
	Work    []Work
	Commits []Commit
	Gaps    []string
}

// The starts, and what each is compared with.
const (
	branchStart = "sandlock-exec, branch"
	plainStart  = "sandlock-exec, no branch"
	bindStart   = "bwrap --unshare-all --proc --bind"
	layerStart  = "bwrap, the same with --overlay"
)

func (w workshop) measureBranches(rounds int) (b Branches, err error) {
	if err := w.buildBranches(); err != nil {
		return Branches{}, err
	}
	ground, leave := w.ground()
	defer leave()
	b.Ground = ground
	if rounds > 0 {
		progress("starts with a branch: %d rounds", rounds)
		if b.Starts, b.Gaps, err = w.measureBranchStarts(rounds); err != nil {
			return Branches{}, err
		}
	}
	progress("work in a branch")
	work, gaps, err := w.measureWork(workFull)
	if err != nil {
		return Branches{}, err
	}
	b.Work, b.Gaps = work, append(b.Gaps, gaps...)
	progress("commits")
	b.Commits, err = w.measureCommits(commitFiles)
	return b, err
}

// buildBranches compiles the policies, which differ in what becomes of the changes, and builds what runs under them.
func (w workshop) buildBranches() error {
	if err := run("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.path("probe/work"), "./bench/work"); err != nil {
		return err
	}
	if err := run("gcc", "-O2", "-static", "-o", w.path("probe/nothing"), "bench/nothing/nothing.c"); err != nil {
		return err
	}
	text, err := os.ReadFile("bench/branch.cue")
	if err != nil {
		return err
	}
	for name, more := range map[string]string{
		"plain":  ``,
		"branch": `filesystem: {workdir: "${work}", storage: "${storage}", on_exit: "abort", on_error: "abort"}`,
		"commit": `filesystem: {workdir: "${work}", storage: "${storage}", on_exit: "commit", on_error: "abort"}`,
	} {
		policy := w.path("branch-" + name + ".cue")
		whole := string(text) + more + "\n"
		if more == "" { // a parameter that nothing uses is refused
			whole = withoutStorage(whole)
		}
		if err := os.WriteFile(policy, []byte(whole), 0o644); err != nil {
			return err
		}
		if err := run(w.path("sandlock-compile"), policy, "-o", w.path("branch-"+name+".sbx")); err != nil {
			return err
		}
	}
	return nil
}

func withoutStorage(policy string) string {
	var kept strings.Builder
	for line := range strings.Lines(policy) {
		if !strings.Contains(line, "storage:") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// place is where branches are measured: trees to work on, and storages for changes.
func (w workshop) place(name string) string { return filepath.Join(w.out, "branches", name) }

// ground has place be an ext4 of its own, in memory: what a disk takes, and what state its file system is in, is not what is
// measured. That is for root; without, it is where bench/out is. leave takes it away.
func (w workshop) ground() (name string, leave func()) {
	dir, image := w.place(""), "/dev/shm/sandlock-bench.ext4"
	clear := func() {
		for _, line := range []string{"umount " + dir, "rm -rf " + dir, "rm -f " + image} {
			_ = run("sh", "-c", line)
		}
	}
	clear()
	if err := os.MkdirAll(dir, 0o755); err != nil || os.Getuid() != 0 {
		return "the file system of " + w.out, clear
	}
	if err := run("sh", "-ec", fmt.Sprintf("truncate -s 4G %[1]s; mkfs.ext4 -q %[1]s; mount -o loop,discard %[1]s %[2]s", image, dir)); err != nil {
		return "the file system of " + w.out, clear
	}
	return "ext4 in memory", clear
}

// branched runs a command under one of the policies.
func (w workshop) branched(policy, work, storage string) []string {
	argv := []string{w.path("sandlock-exec"), "-p", "dir=" + w.out, "-p", "work=" + work}
	if policy != "plain" {
		argv = append(argv, "-p", "storage="+storage)
	}
	return append(argv, w.path("branch-"+policy+".sbx"), "--")
}

// bwrapped is the peer with the mounts of branch.cue.
func bwrapped(work string) []string {
	return []string{"bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--tmpfs", "/tmp", "--proc", "/proc", "--bind", work, work}
}

// bwrapOverlays tells whether this bwrap has overlays, which came with 0.11.
func bwrapOverlays() bool {
	text, _ := exec.Command("bwrap", "--help").CombinedOutput()
	return strings.Contains(string(text), "--tmp-overlay")
}

func (w workshop) measureBranchStarts(rounds int) (starts []ViewStart, gaps []string, err error) {
	lacks := ""
	if !bwrapOverlays() {
		lacks = "this bwrap has no --overlay"
	}
	return measurePlans(w.path("probe/nothing"), rounds, func(uid int) ([]startPlan, error) {
		dir := w.place(fmt.Sprintf("start-%d", uid))
		work, storage, upper := filepath.Join(dir, "work"), filepath.Join(dir, "storage"), filepath.Join(dir, "upper")
		layered := join(bwrapped(work), []string{"--overlay-src", work, "--overlay", upper, filepath.Join(dir, "layer"), work})
		return []startPlan{
			{name: yardstick, argv: []string{w.path("spawn")}},
			{name: branchStart, against: bindStart, target: "≤ 1.05 ×", argv: w.branched("branch", work, storage)},
			{name: plainStart, against: bindStart, argv: w.branched("plain", work, storage)},
			{name: bindStart, argv: bwrapped(work)},
			{name: layerStart, against: bindStart, argv: layered, lacks: lacks},
		}, emptied(uid, work, storage, upper, filepath.Join(dir, "layer"))
	})
}

// emptied makes empty folders of a user, which nobody else may enter.
func emptied(uid int, dirs ...string) error {
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if uid != os.Getuid() {
			if err := os.Chown(dir, uid, uid); err != nil {
				return err
			}
		}
	}
	return nil
}

// branches writes what it costs to keep changes apart.
func (r *Report) branches(w io.Writer) {
	b := &r.Branches
	if len(b.Starts) > 0 {
		startsTable(w, "start of a static program that does nothing", b.Starts)
	}
	if len(b.Work) > 0 {
		fmt.Fprintf(w, "\n| work on %s, speed as a share of bare | bare ms |", b.Ground)
		for _, side := range workSides[1:] {
			fmt.Fprintf(w, " %s |", side)
		}
		fmt.Fprintf(w, " target for the branch |\n|---|---:|%s---|\n", strings.Repeat("---:|", len(workSides)-1))
		for i := range b.Work {
			row := &b.Work[i]
			fmt.Fprintf(w, "| %s | %.0f |", row.Name, median(row.Samples[sideBare])/1e6)
			for _, side := range workSides[1:] {
				if len(row.Samples[side]) == 0 {
					fmt.Fprintf(w, " |")
					continue
				}
				fmt.Fprintf(w, " %.2f |", median(row.speeds(side)))
			}
			fmt.Fprintf(w, " %s |\n", row.Target)
		}
	}
	if len(b.Commits) > 0 {
		fmt.Fprintf(w, "\n| commit of %d files | cp -a and sync -f ms | cp -a and fsync of each ms | commit ms | ratio to sync -f | ratio to fsync | target |\n", b.Commits[0].Files)
		fmt.Fprint(w, "|---|---:|---:|---:|---:|---:|---|\n")
		for i := range b.Commits {
			c := &b.Commits[i]
			fmt.Fprintf(w, "| %s | %.0f | %.0f | %.0f | %.2f × | %.2f × | %s |\n", c.Name, median(c.Copy)/1e6, median(c.CopyEach)/1e6, median(c.Took)/1e6,
				median(c.ratios(c.Copy)), median(c.ratios(c.CopyEach)), c.Target)
		}
	}
	for _, gap := range b.Gaps {
		fmt.Fprintf(w, "\nnot measured: %s\n", gap)
	}
}
