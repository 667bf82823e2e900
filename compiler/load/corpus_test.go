package load

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/sandlock-go/sandlock/compiler/policy"
)

var update = flag.Bool("update", false, "rewrite the out sections of testdata/*.txtar")

// TestCorpus loads the policy of each archive. The files before the first "out" section are written to a directory;
// the comment's line "args: …" says what to load ("policy.cue" by default), "tags: …" which tags to set and "stdin"
// feeds policy.cue to "-". The result is in out/errors or out/policy.
func TestCorpus(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 40 {
		t.Fatalf("found %d archives, %v, want 40 or more", len(archives), err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			section, got := loadArchive(t, archive)
			if again, same := loadArchive(t, archive); again != section || same != got {
				t.Errorf("loaded twice, in two directories: got\n%swant\n%s", same, got)
			}
			compare(t, name, archive, section, got)
		})
	}
}

func compare(t *testing.T, name string, archive *txtar.Archive, section, got string) {
	t.Helper()
	want := txtar.File{}
	var inputs []txtar.File
	for _, f := range archive.Files {
		if strings.HasPrefix(f.Name, "out/") {
			want = f
			continue
		}
		inputs = append(inputs, f)
	}
	if *update {
		archive.Files = append(inputs, txtar.File{Name: section, Data: []byte(got)})
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want.Name != section || string(want.Data) != got {
		t.Errorf("got %s\n%swant %s\n%s", section, got, want.Name, want.Data)
	}
}

func loadArchive(t *testing.T, archive *txtar.Archive) (section, text string) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range archive.Files {
		if strings.HasPrefix(f.Name, "out/") {
			continue
		}
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	opts := Options{Dir: dir, Args: []string{"policy.cue"}}
	for _, line := range strings.Split(string(archive.Comment), "\n") {
		if args, ok := strings.CutPrefix(line, "args:"); ok {
			opts.Args = strings.Fields(args)
		}
		if tags, ok := strings.CutPrefix(line, "tags:"); ok {
			opts.Tags = strings.Fields(tags)
		}
	}
	if len(opts.Args) == 1 && opts.Args[0] == "-" {
		opts.Stdin = strings.NewReader(string(archive.Files[0].Data))
	}
	p, diags := Load(opts)
	if len(diags) > 0 {
		text = diags.String()
		if strings.Contains(text, dir) {
			t.Errorf("diagnostics name the directory:\n%s", text)
		}
		return "out/errors", text
	}
	return "out/policy", withoutDefaults(policy.Dump(p))
}

// withoutDefaults drops what every policy has, but keeps what defaults.txtar is about.
func withoutDefaults(dump string) string {
	var b strings.Builder
	for _, line := range strings.SplitAfter(dump, "\n") {
		if !strings.HasSuffix(line, " (default)\n") || strings.HasPrefix(line, "name ") {
			b.WriteString(line)
		}
	}
	return b.String()
}
