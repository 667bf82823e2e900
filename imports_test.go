// Package sandlock_test holds what is true of the repository as a whole: who may import whom.
package sandlock_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sandlock-go/sandlock"

// The rules are a statement of policy: change them in a commit that says why, never to make a build pass.
//
// The compiler decides and the executor enforces; they meet in ir alone. What the executor links is what a hostile
// program can try to break, hence the rules about reach, which follow imports through the packages of this module.
var rules = []rule{
	{
		name: "ir imports neither side",
		from: within("ir"), forbid: anyOf(ours("schema"), ours("compiler"), ours("exec"), ours("cmd")), reach: true,
	},
	{
		// Who writes a policy, who checks an artifact and who walks directories must read a pattern alike.
		name: "the grammar of patterns imports the standard library alone",
		from: within("ir/glob"), forbid: notStandard,
	},
	{
		name: "the executor reaches neither the compiler, nor the schema, nor CUE",
		from: within("exec", "cmd/sandlock-exec"), reach: true,
		forbid: anyOf(ours("compiler"), ours("schema"), foreign("cuelang.org")),
	},
	{
		name: "the compiler does not reach the executor",
		from: within("compiler", "schema", "cmd/sandlock-compile"), forbid: ours("exec"), reach: true,
	},
	{
		name: "handlers do not import each other",
		from: within("exec/handler"), forbid: otherHandler, reach: true,
	},
	{
		name: "unsafe code is in the adapters to the kernel alone",
		from: everythingBut("exec/kernel", "exec/stage", "exec/exectest/probe"), forbid: foreign("unsafe"),
	},
	{
		name: "go-seccomp-bpf is the code generator's alone",
		from: everythingBut("compiler/seccomp", "ir/abi"), forbid: foreign("github.com/elastic/go-seccomp-bpf"),
	},
	{
		name: "go-landlock is the kernel adapter's alone",
		from: everythingBut("exec/kernel"), forbid: foreign("github.com/landlock-lsm/go-landlock"),
	},
	{
		name: "kong is the command lines' alone",
		from: everythingBut("cmd"), forbid: foreign("github.com/alecthomas/kong"),
	},
	{
		// It adds half a millisecond to every start, and parsers of hostile bytes to the supervisor.
		name: "the executor does not link net/http",
		from: outside(within("exec", "cmd/sandlock-exec"), "exec/exectest"), forbid: foreign("net/http"), reach: true,
	},
	{
		name: "the executor starts processes by exec/stage and exec/helper alone",
		from: outside(within("exec", "cmd/sandlock-exec"), "exec/exectest"), forbid: foreign("os/exec"),
	},
	{
		// The helper program exists so that what parses the network's bytes is not the supervisor.
		name: "of the helper the executor has the protocol alone",
		from: within("exec", "cmd/sandlock-exec"), reach: true,
		forbid: butFor("proxy/protocol", ours("proxy")),
	},
	{
		name: "of the executor the helper has the adapter to the kernel alone",
		from: within("proxy", "cmd/sandlock-proxy"), reach: true,
		forbid: anyOf(butFor("exec/kernel", ours("exec")), ours("compiler"), ours("schema"), foreign("cuelang.org")),
	},
	{
		name: "the helper's protocol imports nothing of either side",
		from: within("proxy/protocol"), forbid: ours(""),
	},
	{
		// What has keys and secrets in its hands is to be read on its own.
		name: "keys and secrets know the helper's protocol alone",
		from: within("proxy/ca", "proxy/credential"), forbid: butFor("proxy/protocol", ours("")), reach: true,
	},
	{
		// What says whether bytes are HTTP is read, and tested, by itself.
		name: "the reader of HTTP/1 heads imports the standard library alone",
		from: within("proxy/strict"), forbid: notStandard,
	},
	{
		name: "the server and client of HTTP are the intercepting proxy's alone",
		from: outside(within("proxy"), "proxy/intercept", "proxy/credential"), forbid: foreign("net/http"),
	},
	{
		name: "DNS messages are the resolver's alone",
		from: everythingBut("proxy/resolver"), forbid: foreign("github.com/miekg/dns"),
	},
	{
		name: "file systems in user space are served by a stand-in of the test harness alone",
		from: everythingBut("exec/exectest/branchfs"), forbid: foreign("github.com/hanwen/go-fuse"),
	},
	{
		name: "the test harness stays in tests",
		from: everythingBut("exec/exectest"), forbid: ours("exec/exectest"),
	},
}

// rule forbids imports to the packages that from selects; with reach also the imports of what they import.
type rule struct {
	name   string
	from   func(pkg string) bool
	forbid func(pkg, imported string) bool
	reach  bool
}

// graph maps each package of the module, by its folder, to what its files import (not those of its tests).
type graph map[string][]string

func TestImports(t *testing.T) {
	g, err := readGraph(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(g) < 5 {
		t.Fatalf("found %d packages only: is this the module's root?", len(g))
	}
	for _, violation := range check(g, rules) {
		t.Error(violation)
	}
}

func check(g graph, rules []rule) (violations []string) {
	for _, r := range rules {
		for _, pkg := range slices.Sorted(maps.Keys(g)) {
			if r.from(pkg) {
				violations = append(violations, g.walk(r, pkg, pkg, pkg, map[string]bool{})...)
			}
		}
	}
	return violations
}

// walk looks at the imports of one package and, for rules about reach, goes on to those of this module. trail is the
// chain of imports so far.
func (g graph) walk(r rule, start, pkg, trail string, seen map[string]bool) (violations []string) {
	seen[pkg] = true
	for _, imported := range g[pkg] {
		if r.forbid(start, imported) {
			violations = append(violations, fmt.Sprintf("%s: %s -> %s", r.name, trail, imported))
			continue
		}
		next, ok := folder(imported)
		if ok && r.reach && !seen[next] {
			violations = append(violations, g.walk(r, start, next, trail+" -> "+next, seen)...)
		}
	}
	return violations
}

// readGraph parses the imports in this process, not by the go command: the test cache sees which files a test reads,
// but not which its children read.
func readGraph(root string) (graph, error) {
	g := graph{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if file != root && (strings.HasPrefix(entry.Name(), ".") || skipped(entry.Name())) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		return g.addFile(root, file)
	})
	return g, err
}

func skipped(dir string) bool { return dir == "testdata" || dir == "vendor" || dir == "out" }

func (g graph) addFile(root, file string) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	dir, err := filepath.Rel(root, filepath.Dir(file))
	if err != nil {
		return err
	}
	pkg := filepath.ToSlash(dir)
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if !slices.Contains(g[pkg], imported) {
			g[pkg] = append(g[pkg], imported)
		}
	}
	return nil
}

func folder(imported string) (string, bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

func beneath(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

func within(dirs ...string) func(string) bool {
	return func(pkg string) bool {
		return slices.ContainsFunc(dirs, func(dir string) bool { return beneath(pkg, dir) })
	}
}

func everythingBut(dirs ...string) func(string) bool {
	return outside(func(string) bool { return true }, dirs...)
}

func outside(from func(string) bool, dirs ...string) func(string) bool {
	excepted := within(dirs...)
	return func(pkg string) bool { return from(pkg) && !excepted(pkg) }
}

func ours(dir string) func(string, string) bool {
	return foreign(path.Join(module, dir))
}

func foreign(prefix string) func(string, string) bool {
	return func(_, imported string) bool { return beneath(imported, prefix) }
}

// notStandard holds for what has a domain in front, packages of this module included.
func notStandard(_, imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return strings.Contains(first, ".")
}

// butFor is forbid without one package of this module.
func butFor(pkg string, forbid func(string, string) bool) func(string, string) bool {
	return func(from, imported string) bool { return imported != path.Join(module, pkg) && forbid(from, imported) }
}

func anyOf(forbids ...func(string, string) bool) func(string, string) bool {
	return func(pkg, imported string) bool {
		return slices.ContainsFunc(forbids, func(f func(string, string) bool) bool { return f(pkg, imported) })
	}
}

// otherHandler holds for an import of one handler's package by a package outside it; sub-packages are its own.
func otherHandler(pkg, imported string) bool {
	const handlers = "exec/handler/"
	target, ok := folder(imported)
	if !ok || !strings.HasPrefix(target, handlers) || !strings.HasPrefix(pkg, handlers) {
		return false
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(pkg, handlers), "/")
	return !beneath(target, handlers+name)
}

// A checker that finds nothing would pass for ever: each rule must find the violation that it is for.
func TestImportCheckerFindsViolations(t *testing.T) {
	for _, tc := range []struct {
		name string
		g    graph
		want string
	}{
		{"ir to compiler", graph{"ir/seal": {module + "/compiler/load"}, "compiler/load": nil},
			"ir imports neither side: ir/seal -> " + module + "/compiler/load"},
		{"ir to exec through another package", graph{"ir": {module + "/ir/abi"}, "ir/abi": {module + "/exec"}},
			"ir imports neither side: ir -> ir/abi -> " + module + "/exec"},
		{"executor to CUE through ir", graph{"cmd/sandlock-exec": {module + "/exec"}, "exec": {module + "/ir"}, "ir": {"cuelang.org/go/cue"}},
			"the executor reaches neither the compiler, nor the schema, nor CUE: cmd/sandlock-exec -> exec -> ir -> cuelang.org/go/cue"},
		{"compiler to exec", graph{"compiler/lower": {module + "/exec/kernel"}},
			"the compiler does not reach the executor: compiler/lower -> " + module + "/exec/kernel"},
		{"handler to handler", graph{"exec/handler/listen": {module + "/exec/handler/processes"}},
			"handlers do not import each other: exec/handler/listen -> " + module + "/exec/handler/processes"},
		{"unsafe", graph{"ir/bpf": {"unsafe"}},
			"unsafe code is in the adapters to the kernel alone: ir/bpf -> unsafe"},
		{"assembler", graph{"compiler/lower": {"github.com/elastic/go-seccomp-bpf/arch"}},
			"go-seccomp-bpf is the code generator's alone: compiler/lower -> github.com/elastic/go-seccomp-bpf/arch"},
		{"landlock", graph{"exec/stage": {"github.com/landlock-lsm/go-landlock/landlock/syscall"}},
			"go-landlock is the kernel adapter's alone: exec/stage -> github.com/landlock-lsm/go-landlock/landlock/syscall"},
		{"kong", graph{"compiler": {"github.com/alecthomas/kong"}},
			"kong is the command lines' alone: compiler -> github.com/alecthomas/kong"},
		{"net/http", graph{"exec/audit": {"net/http"}},
			"the executor does not link net/http: exec/audit -> net/http"},
		{"os/exec", graph{"cmd/sandlock-exec": {"os/exec"}},
			"the executor starts processes by exec/stage and exec/helper alone: cmd/sandlock-exec -> os/exec"},
		{"helper in the executor", graph{"exec": {module + "/exec/helper"}, "exec/helper": {module + "/proxy/lookup"}},
			"of the helper the executor has the protocol alone: exec -> exec/helper -> " + module + "/proxy/lookup"},
		{"executor in the helper", graph{"cmd/sandlock-proxy": {module + "/exec/supervise"}},
			"of the executor the helper has the adapter to the kernel alone: cmd/sandlock-proxy -> " + module + "/exec/supervise"},
		{"protocol", graph{"proxy/protocol": {module + "/ir"}},
			"the helper's protocol imports nothing of either side: proxy/protocol -> " + module + "/ir"},
		{"secrets", graph{"proxy/credential": {module + "/exec/kernel"}},
			"keys and secrets know the helper's protocol alone: proxy/credential -> " + module + "/exec/kernel"},
		{"reader of heads to ours", graph{"proxy/strict": {module + "/ir"}},
			"the reader of HTTP/1 heads imports the standard library alone: proxy/strict -> " + module + "/ir"},
		{"reader of heads to others", graph{"proxy/strict": {"golang.org/x/net/http/httpguts"}},
			"the reader of HTTP/1 heads imports the standard library alone: proxy/strict -> golang.org/x/net/http/httpguts"},
		{"HTTP in the resolver", graph{"proxy/resolver": {"net/http"}},
			"the server and client of HTTP are the intercepting proxy's alone: proxy/resolver -> net/http"},
		{"DNS messages in the executor", graph{"exec": {"github.com/miekg/dns"}},
			"DNS messages are the resolver's alone: exec -> github.com/miekg/dns"},
		{"FUSE server", graph{"exec/branchfs": {"github.com/hanwen/go-fuse/v2/fuse"}},
			"file systems in user space are served by a stand-in of the test harness alone: exec/branchfs -> github.com/hanwen/go-fuse/v2/fuse"},
		{"harness", graph{"exec": {module + "/exec/exectest"}},
			"the test harness stays in tests: exec -> " + module + "/exec/exectest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := check(tc.g, rules); !slices.Contains(got, tc.want) {
				t.Errorf("got %q, want it to contain %q", got, tc.want)
			}
		})
	}
}

func TestImportCheckerAllows(t *testing.T) {
	allowed := graph{
		"exec/handler/listen":       {module + "/exec/handler/listen/table", module + "/exec/supervise"},
		"exec/handler/listen/table": {module + "/ir"},
		"exec/kernel":               {"unsafe", "github.com/landlock-lsm/go-landlock/landlock/syscall"},
		"cmd/sandlock-compile":      {"github.com/alecthomas/kong", module + "/compiler", module + "/ir"},
		"compiler/seccomp":          {"github.com/elastic/go-seccomp-bpf", module + "/ir/bpf"},
		"exec/helper":               {module + "/proxy/protocol"},
		"proxy/confine":             {module + "/exec/kernel"},
		"proxy/ca":                  {module + "/proxy/protocol"},
		"proxy/strict":              {"net/netip", "sync"},
		"proxy/intercept":           {"net/http", module + "/ir", module + "/ir/query", module + "/proxy/strict"},
		"proxy/resolver":            {"github.com/miekg/dns", module + "/proxy/protocol"},
	}
	if got := check(allowed, rules); len(got) > 0 {
		t.Errorf("got %q, want none", got)
	}
}

// The graph must come from the files as they are, tests left out.
func TestReadGraph(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("ir/a.go", "package ir\n\nimport _ \"unsafe\"\n")
	write("ir/b_linux.go", "package ir\n\nimport x \"net/http\"\n\nvar _ x.Client\n")
	write("ir/a_test.go", "package ir\n\nimport _ \"testing\"\n")
	write("ir/testdata/c.go", "package c\n\nimport _ \"os\"\n")
	got, err := readGraph(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !slices.Equal(got["ir"], []string{"unsafe", "net/http"}) {
		t.Errorf("got %v, want unsafe and net/http for ir alone", got)
	}
}
