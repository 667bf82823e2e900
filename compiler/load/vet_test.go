package load

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/load"

	"github.com/sandlock-go/sandlock/schema"
)

// vet does what `cue vet` does with a module that has a copy of the schema in cue.mod/pkg, without this package.
func vet(t *testing.T, policy string) error {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("cue.mod/module.cue", []byte("module: \"example.com/p@v0\"\nlanguage: version: \"v0.15.0\"\n"))
	write("policy.cue", []byte(policy))
	for _, from := range []string{".", "preset"} {
		entries, err := schema.FS.ReadDir(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !e.IsDir() {
				data, err := schema.FS.ReadFile(strings.TrimPrefix(from+"/"+e.Name(), "./"))
				if err != nil {
					t.Fatal(err)
				}
				write("cue.mod/pkg/"+schema.ImportPath+"/"+from+"/"+e.Name(), data)
			}
		}
	}
	inst := load.Instances([]string{"."}, &load.Config{Dir: dir, Registry: registry{}})[0]
	if inst.Err != nil {
		return inst.Err
	}
	return cuecontext.New().BuildInstance(inst).Validate(cue.Concrete(true), cue.Final())
}

// TestOrdinaryVet checks policies that import the schema as CUE's own tool does.
func TestOrdinaryVet(t *testing.T) {
	const head = "package p\n\nimport (\n\t\"sandlock.dev/policy\"\n\t\"sandlock.dev/policy/preset\"\n)\n\npolicy.#Policy & {\n\tfilesystem: read: preset.python.read\n"
	if err := vet(t, head+"\tlimits: {cpu: 50, memory: \"512M\"}\n\tnetwork: allow: [\"a.example:443\"]\n}\n"); err != nil {
		t.Errorf("valid policy: %v", err)
	}
	for _, tc := range []struct{ text, want string }{
		{"limits: cpu: 250", "must be an integer from 1 to 100"},
		{"limits: cpuu: 5", "field not allowed"},
		{"limitz: cpu: 5", "field not allowed"},
		{"network: {allow: [\"a\"], deny: [\"10.0.0.1\"]}", "cannot be combined"},
		{"http: ca: \"/ca.pem\"", "field is required"},
		{"filesystem: tmp: \"x\"", "must be one of"},
	} {
		if err := vet(t, head+"\t"+tc.text+"\n}\n"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.text, err, tc.want)
		}
	}
}
