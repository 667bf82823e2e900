package main

import (
	"flag"
	"os"
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
			return os.WriteFile(filepath.Join(e.WorkDir, "default.sbx"), artifact, 0o644)
		},
	})
}
