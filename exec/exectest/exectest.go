// Package exectest runs policies against the real kernel, from the outside, as a person does: it compiles policy text
// with sandlock-compile, starts commands with sandlock-exec, and reads what the probe program says from inside.
//
// In: policy text and commands. Out: what they printed and how they ended. Every run is bounded in time and leaves no
// process behind. The package judges nothing, and takes no short cut through the Go packages of either side: what
// passes here passes for the user.
//
// A test that expects a refusal must show that the same attempt works where nothing forbids it ([Box.Control]): a
// broken probe or a missing tool must not look like a safe sandbox.
//
// Read next: box.go (the setting of one test), run.go (how processes are run), place.go (hosts that refuse things),
// probe/main.go (the attempts).
package exectest

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// scratch holds the tools and every box. Ordinary users can reach it, unlike testing's own temporary folders.
var scratch string

// atOnce is how many parallel tests run at a time at least. They wait much of their time: for a limit to be reached, or for
// processes that wait for each other.
const atOnce = 4

// Main runs the tests of a package that uses exectest: call it from TestMain.
func Main(m *testing.M) {
	if err := settle(); err != nil {
		fmt.Fprintln(os.Stderr, "exectest:", err)
		os.Exit(placeMissing)
	}
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked && runtime.GOMAXPROCS(0) < atOnce {
		_ = flag.Set("test.parallel", strconv.Itoa(atOnce))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sandlock-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "exectest:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, "exectest:", err)
			return 1
		}
		scratch = dir
		return m.Run()
	}())
}

// Scratch returns a folder that every user can reach, for what a test process makes once. It goes away with the process.
func Scratch(tb testing.TB) string {
	tb.Helper()
	if scratch == "" {
		tb.Fatal("exectest: TestMain does not call exectest.Main")
	}
	return scratch
}

// The programs under test. Each is built once per test process, when a test first needs it.
var (
	compiler = program("sandlock-compile", "./cmd/sandlock-compile")
	executor = program("sandlock-exec", "./cmd/sandlock-exec")
	probe    = program("probe", "./exec/exectest/probe")
	pausable = program("pausable", "./exec/exectest/pausable")
	lookup   = program("lookup", "./exec/exectest/lookup")
	goClient = program("goclient", "./exec/exectest/goclient")
	helper   = programIn("sandlock-exec", "sandlock-proxy", "./cmd/sandlock-proxy")
)

// Compiler returns the path of sandlock-compile.
func Compiler(tb testing.TB) string { tb.Helper(); return built(tb, compiler) }

// Executor returns the path of sandlock-exec.
func Executor(tb testing.TB) string { tb.Helper(); return built(tb, executor) }

// Helper returns the path of sandlock-proxy, which lies beside sandlock-exec.
func Helper(tb testing.TB) string { tb.Helper(); return built(tb, helper) }

// Lookup returns the path of a program that resolves names as Go programs do. It is alone in its folder.
func Lookup(tb testing.TB) string { tb.Helper(); return built(tb, lookup) }

// GoClient returns the path of a program that talks to servers as Go programs do. It is alone in its folder.
func GoClient(tb testing.TB) string { tb.Helper(); return built(tb, goClient) }

// Probe returns the path of the program that makes attempts. It is alone in its folder.
func Probe(tb testing.TB) string { tb.Helper(); return built(tb, probe) }

// Pausable returns the path of an executor that pauses its command when it is asked to.
func Pausable(tb testing.TB) string { tb.Helper(); return built(tb, pausable) }

func built(tb testing.TB, build func() (string, error)) string {
	tb.Helper()
	if scratch == "" {
		tb.Fatal("exectest: TestMain does not call exectest.Main")
	}
	path, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func program(name, pkg string) func() (string, error) { return programIn(name, name, pkg) }

// programIn puts each program in a folder of its own, so that a grant of the probe's folder grants nothing else; those that
// belong together name the same.
func programIn(folder, name, pkg string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if tools := os.Getenv(toolsVariable); tools != "" {
			return filepath.Join(tools, "bin-"+folder, name), nil
		}
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		if err := touchSources(root); err != nil {
			return "", err
		}
		return buildProgram(root, filepath.Join(scratch, "bin-"+folder, name), pkg)
	})
}

func buildProgram(root, out, pkg string) (string, error) {
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	// The umask may have hidden both from ordinary users.
	if err := os.Chmod(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	return out, os.Chmod(out, 0o755)
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find module root: no go.mod above the working directory")
		}
		dir = parent
	}
}

// touchSources looks at every source file. The test cache records which files a test process looked at, but not what
// the go command that it starts reads: without this, a result from before a change of the executor stays "ok (cached)".
func touchSources(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if strings.HasPrefix(name, ".") && path != root || name == "out" {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(name) {
		case ".go", ".s", ".cue", ".sbx", ".mod":
			_, err = os.Stat(path)
		}
		if os.IsNotExist(err) { // an editor's temporary file
			err = nil
		}
		return err
	})
}
