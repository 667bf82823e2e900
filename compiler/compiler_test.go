package compiler

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/ir"
)

var update = flag.Bool("update", false, "write the expected parts of testdata anew")

// TestCorpus compiles the policy of each archive in testdata. An archive holds policy.cue, other files that it needs,
// and what is expected: out/errors (all diagnostics, as text), and any section of the dump under its name, such as
// out/filesystem. What the built-in filter does is left out: it has tests of its own (compiler/seccomp, golden). So
// "system calls" holds only the lines that a policy without rules does not have. A policy with an error has no dump.
func TestCorpus(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives (%v)", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) { runArchive(t, name) })
	}
}

func runArchive(t *testing.T, name string) {
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "out/") {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	validated := 0
	p, diags, err := Compile(Options{
		Source: load.Options{Dir: dir, Args: []string{"policy.cue"}},
		After:  func(pass string, p *ir.Program) { validated += validateAfter(t, pass, p) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if p != nil && validated == 0 {
		t.Error("no pass was followed by a valid program")
	}
	changed := false
	for i := range a.Files {
		f := &a.Files[i]
		want, isOut := strings.CutPrefix(f.Name, "out/")
		if !isOut {
			continue
		}
		got := diags.String()
		if want != "errors" {
			got = section(t, p, want)
		}
		if got == string(f.Data) {
			continue
		}
		if *update {
			f.Data, changed = []byte(got), true
			continue
		}
		t.Errorf("%s: got\n%s\nwant\n%s", f.Name, got, f.Data)
	}
	if !slices.ContainsFunc(a.Files, func(f txtar.File) bool { return f.Name == "out/errors" }) {
		t.Error("the archive has no out/errors")
	}
	if changed {
		if err := os.WriteFile(name, txtar.Format(a), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// validateAfter holds every pass that leaves a whole program to the contract, so that the guilty pass is named. Before
// the filters are made the program is not whole.
func validateAfter(t *testing.T, pass string, p *ir.Program) int {
	if len(p.Seccomp.Filters) == 0 {
		return 0
	}
	if err := p.Validate(); err != nil {
		t.Errorf("after pass %s: %v", pass, err)
	}
	return 1
}

// section returns one section of a dump, without its title.
func section(t *testing.T, p *ir.Program, name string) string {
	if p == nil {
		return ""
	}
	for part := range strings.SplitSeq(p.Dump(ir.DumpOptions{}), "\n\n") {
		title, rest, _ := strings.Cut(part, "\n")
		if title != name && !strings.HasPrefix(title, name+"  ") {
			continue
		}
		lines := strings.SplitAfter(strings.TrimSuffix(rest, "\n")+"\n", "\n")
		var usual string
		if name == "system calls" {
			usual = plainPolicy(t).Dump(ir.DumpOptions{})
		}
		return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
			count := strings.HasPrefix(line, "  system calls") || strings.HasPrefix(line, "  filter ")
			return count || usual != "" && line != "" && strings.Contains(usual, line)
		}), "")
	}
	t.Errorf("the dump has no section %q", name)
	return ""
}

// plainPolicy compiles a policy without rules about system calls.
func plainPolicy(t *testing.T) *ir.Program {
	stdin := strings.NewReader(`filesystem: read: ["/usr"]`)
	p, diags, err := Compile(Options{Source: load.Options{Args: []string{"-"}, Stdin: stdin}})
	if err != nil || p == nil {
		t.Fatalf("compile the plain policy: %v\n%s", err, diags)
	}
	return p
}

// TestDeterministic: the same policy gives the same bytes, however often and from wherever it is compiled.
func TestDeterministic(t *testing.T) {
	text, err := os.ReadFile("../policies/agent.cue")
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	for i := range 4 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "agent.cue"), text, 0o666); err != nil {
			t.Fatal(err)
		}
		t.Setenv("HOME", dir)
		t.Setenv("TZ", []string{"UTC", "Asia/Tokyo", "America/Lima", ":bad"}[i])
		t.Setenv("CUE_EXPERIMENT", []string{"", "evalv3=0", "", "keepvalidators=0"}[i])
		p, diags, err := Compile(Options{Source: load.Options{Args: []string{filepath.Join(dir, "agent.cue")}}})
		if err != nil || p == nil {
			t.Fatalf("%v\n%s", err, diags)
		}
		b, err := ir.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Errorf("compilation %d: other bytes", i)
		}
		back, err := ir.Decode(b)
		if err != nil || back.Dump(ir.DumpOptions{Origins: true}) != p.Dump(ir.DumpOptions{Origins: true}) {
			t.Errorf("decoded program differs (%v)", err)
		}
	}
}

func TestStrip(t *testing.T) {
	source := load.Options{Args: []string{"../policies/agent.cue"}}
	full, _, err := Compile(Options{Source: source})
	if err != nil || len(full.Origins) == 0 {
		t.Fatalf("without strip: %v, want origins", err)
	}
	bare, _, err := Compile(Options{Source: source, Strip: true})
	if err != nil || len(bare.Origins) != 0 {
		t.Fatalf("with strip: %v, want no origins", err)
	}
	if full.Dump(ir.DumpOptions{}) != bare.Dump(ir.DumpOptions{}) {
		t.Error("stripping origins changed the meaning")
	}
}

func TestPassOrder(t *testing.T) {
	index := map[string]int{}
	for i, p := range passes {
		if _, twice := index[p.name]; twice {
			t.Errorf("pass %q is listed twice", p.name)
		}
		index[p.name] = i
	}
	named := map[string]bool{}
	for _, c := range order {
		before, okBefore := index[c.before]
		after, okAfter := index[c.after]
		switch {
		case !okBefore || !okAfter:
			t.Errorf("constraint %q before %q names no pass", c.before, c.after)
		case before >= after:
			t.Errorf("pass %q comes after %q, but must come before it: %s", c.before, c.after, c.why)
		case c.why == "":
			t.Errorf("constraint %q before %q has no reason", c.before, c.after)
		}
		named[c.before], named[c.after] = true, true
	}
	for _, p := range passes {
		if p.name != "params" && p.name != "tests" && !named[p.name] { // these two depend on nothing but check
			t.Errorf("no constraint speaks of pass %q", p.name)
		}
	}
}

// TestBugsAreNoPolicyErrors: whatever goes wrong inside is reported as a bug and gives no program.
func TestBugsAreNoPolicyErrors(t *testing.T) {
	boom := errors.New("boom")
	saved := passes
	defer func() { passes = saved }()
	for _, broken := range []pass{
		{"broken", func(*unit) error { return boom }, true},
		{"broken", func(*unit) error { panic(boom) }, true},
		{"broken", func(u *unit) error { u.Program.Landlock.Handled.FS = 0; return u.validate() }, true},
	} {
		passes = append(slices.Clone(saved), broken)
		p, _, err := Compile(Options{Source: load.Options{Args: []string{"../policies/minimal.cue"}}})
		var bug *BugError
		if !errors.As(err, &bug) || bug.Pass != "broken" || p != nil {
			t.Errorf("got program %v, error %v; want no program and a bug in pass broken", p != nil, err)
		}
	}
}
