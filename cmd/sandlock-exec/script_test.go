package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite what the scripts expect")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sandlock-exec": main})
}

// The scripts see the program as its users do. default.sbx is the built-in default policy as a file.
func TestScripts(t *testing.T) {
	artifact, err := os.ReadFile("../../exec/default.sbx")
	if err != nil {
		t.Fatal(err)
	}
	executor := buildBeside(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			// An artifact must not lie where its policy lets the command write: scripts run in $WORK/here.
			if err := os.MkdirAll(filepath.Join(e.WorkDir, "here"), 0o755); err != nil {
				return err
			}
			e.Cd = filepath.Join(e.WorkDir, "here")
			e.Setenv("EXECUTOR", executor)
			return os.WriteFile(filepath.Join(e.WorkDir, "default.sbx"), artifact, 0o644)
		},
	})
}

// buildBeside puts the helper program and the compiler where sandlock-exec is for the scripts, and returns its path.
func buildBeside(t *testing.T) (executor string) {
	t.Helper()
	executor, err := exec.LookPath("sandlock-exec")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Dir(executor), "../sandlock-compile", "../sandlock-proxy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	if err := os.Chmod(filepath.Join(filepath.Dir(executor), "sandlock-proxy"), 0o755); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return executor
}
