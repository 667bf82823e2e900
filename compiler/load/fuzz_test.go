package load

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// FuzzLoad loads hostile text from standard input: it must not panic, and an error must name a place in that input.
func FuzzLoad(f *testing.F) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if file.Name == "policy.cue" {
				f.Add(string(file.Data))
			}
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 2000 || strings.Contains(text, "list.Range") {
			t.Skip()
		}
		p, diags := Load(Options{Dir: dir, Args: []string{"-"}, Stdin: strings.NewReader(text)})
		if (p == nil) == (len(diags) == 0) {
			t.Fatalf("got policy %v and diagnostics %v", p, diags)
		}
		for _, d := range diags {
			if d.Rule == "" || d.Msg == "" || d.Rule == "internal" {
				t.Errorf("diagnostic %+v", d)
			}
		}
	})
}
