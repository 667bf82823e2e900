package main

import (
	"flag"
	"os"
	"os/exec"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write the expected output of the scripts anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sandlock-compile": main})
}

// TestScript runs testdata/script. Files are named after the command they are about; commands run in processes of
// their own.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			policies, err := os.Getwd()
			env.Setenv("POLICIES", policies+"/../../policies")
			return err
		},
		Condition: func(cond string) (bool, error) {
			if cond == "ssh-keygen" {
				_, err := exec.LookPath("ssh-keygen")
				return err == nil, nil
			}
			return false, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exitcode": exitCodeIs,
			"flipbyte": flipByte,
		},
	})
}

// exitCodeIs runs a command and wants an exit code: exitcode 2 command args…
func exitCodeIs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode code command args…")
	}
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		code = exit.String()[len("exit status "):]
	}
	if code != args[0] {
		ts.Fatalf("exit code: got %s, want %s", code, args[0])
	}
}

// flipByte changes one bit in the middle of a file: flipbyte from to
func flipByte(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flipbyte from to")
	}
	b := []byte(ts.ReadFile(args[0]))
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o666))
}
