package exec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
)

func TestBindParameters(t *testing.T) {
	parent := t.TempDir()
	inside := filepath.Join(parent, "inside")
	outside := t.TempDir()
	for _, dir := range []string{inside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(inside, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"out": outside, "in": inside} {
		if err := os.Symlink(target, filepath.Join(parent, link)); err != nil {
			t.Fatal(err)
		}
	}
	under := []ir.Template{parent}
	tests := []struct {
		name  string
		param ir.Param
		value string
		want  string // value, or part of the error when it starts with "!"
	}{
		{"dir", ir.Param{Type: ir.ParamDir}, inside, inside},
		{"dir that is a file", ir.Param{Type: ir.ParamDir}, file, "!not a directory"},
		{"file that is a dir", ir.Param{Type: ir.ParamFile}, inside, "!is a directory"},
		{"missing dir", ir.Param{Type: ir.ParamDir}, parent + "/no", "!no such file"},
		{"missing path", ir.Param{Type: ir.ParamPath}, inside + "/new", inside + "/new"},
		{"link resolved", ir.Param{Type: ir.ParamDir, Under: under}, parent + "/in", inside},
		{"link out of the parent", ir.Param{Type: ir.ParamDir, Under: under}, parent + "/out", "!not beneath"},
		{"new file through a link out", ir.Param{Type: ir.ParamPath, Under: under}, parent + "/out/new", "!not beneath"},
		{"climbing", ir.Param{Type: ir.ParamPath, Under: under}, parent + "/../x", "!"},
		{"NUL", ir.Param{Type: ir.ParamPath}, "/a\x00b", "!"},
		{"prefix is not beneath", ir.Param{Type: ir.ParamPath, Under: []ir.Template{parent + "/ins"}}, inside, "!not beneath"},
		{"port", ir.Param{Type: ir.ParamPort}, "8080", "8080"},
		{"port out of range", ir.Param{Type: ir.ParamPort}, "70000", "!"},
		{"pattern", ir.Param{Type: ir.ParamString, Pattern: "[a-z]+"}, "abc1", "!"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tc.param.Name = "x"
			p := &ir.Program{Params: []ir.Param{tc.param}}
			b, problems := bind(p, map[string]string{"x": tc.value}, nil, "")
			if fragment, wantErr := strings.CutPrefix(tc.want, "!"); wantErr {
				if len(problems) != 1 || !strings.Contains(problems[0], fragment) {
					t.Errorf("bind(%q): problems %q, want one with %q", tc.value, problems, fragment)
				}
				return
			}
			if len(problems) > 0 || b.values["x"] != tc.want {
				t.Errorf("bind(%q) = %q, %q; want %q", tc.value, b.values["x"], problems, tc.want)
			}
		})
	}
}

func TestBindReportsEverythingAtOnce(t *testing.T) {
	p := &ir.Program{
		Params:  []ir.Param{{Name: "a", Type: ir.ParamPort, Description: "where to listen"}, {Name: "b", Type: ir.ParamPort}},
		Process: ir.Process{Env: []ir.EnvVar{{Name: "A", Value: "${a}"}}},
	}
	_, problems := bind(p, map[string]string{"b": "x", "c": "1"}, nil, "")
	got := strings.Join(problems, "\n")
	for _, want := range []string{`"a" has no value`, "where to listen", `"b"`, `no parameter "c"`, "declares a, b"} {
		if !strings.Contains(got, want) {
			t.Errorf("problems lack %q:\n%s", want, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	inherited := []string{"HOME=/h", "LC_ALL=C", "LC_TIME=x", "TOKEN=secret", "broken", "=odd"}
	tests := []struct {
		name string
		p    ir.Process
		want string
	}{
		{"inherit", ir.Process{}, "HOME=/h LC_ALL=C LC_TIME=x TOKEN=secret"},
		{"clean", ir.Process{CleanEnv: true}, ""},
		{"pass", ir.Process{CleanEnv: true, PassEnv: []string{"HOME", "LC_*"}}, "HOME=/h LC_ALL=C LC_TIME=x"},
		{"pass is no prefix by itself", ir.Process{CleanEnv: true, PassEnv: []string{"LC"}}, ""},
		{"set wins", ir.Process{Env: []ir.EnvVar{{Name: "HOME", Value: "${cwd}/x"}}}, "LC_ALL=C LC_TIME=x TOKEN=secret HOME=/w/x"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := environment(&tc.p, inherited, func(string) (string, bool) { return "/w", true })
			if err != nil || strings.Join(got, " ") != tc.want {
				t.Errorf("environment = %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}
