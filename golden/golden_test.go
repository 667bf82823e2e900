// Package golden_test compares the goldens with what the policies mean.
//
// A golden is what a reviewer reads of a policy: one <policy>.txt for each file in policies/. After a change of a policy
// or of the compiler, write them anew and say in the commit why they changed:
//
//	go test ./golden -update        or        sandlock-compile golden
package golden_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/compiler"
	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/ir"
)

var update = flag.Bool("update", false, "write the goldens anew")

func TestGolden(t *testing.T) {
	policies, err := filepath.Glob("../policies/*.cue")
	if err != nil || len(policies) == 0 {
		t.Fatalf("no policies (%v)", err)
	}
	known := map[string]bool{}
	for _, file := range policies {
		golden := strings.TrimSuffix(filepath.Base(file), ".cue") + ".txt"
		known[golden] = true
		t.Run(golden, func(t *testing.T) {
			p, diags, err := compiler.Compile(compiler.Options{Source: load.Options{Args: []string{file}}})
			if err != nil || p == nil {
				t.Fatalf("compile %s: %v\n%s", file, err, diags)
			}
			text := p.Dump(ir.DumpOptions{})
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			old, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(old) != text {
				t.Errorf("%s is stale: %s\nreview the difference and write it anew with -update", golden, firstDifference(string(old), text))
			}
		})
	}
	goldens, _ := filepath.Glob("*.txt")
	for _, golden := range goldens {
		if !known[golden] {
			t.Errorf("%s belongs to no policy", golden)
		}
	}
}

func firstDifference(before, after string) string {
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			return "it says\n\t" + a[i] + "\nthe policy means\n\t" + b[i]
		}
	}
	return "one is longer than the other"
}
