package load

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cuelang.org/go/cue/load"
	"cuelang.org/go/mod/modfile"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/schema"
)

// bareModule stands in for cue.mod/module.cue where a policy has none: CUE allows imports in modules only.
const bareModule = `module: "policy.local@v0"
language: version: "v0.15.0"
deps: "` + schema.ModulePath + `": v: "` + schema.Version + `"
`

// overlayModule makes the embedded schema importable, whether the policy's module names it as a dependency or not, and
// whatever copy of it lies on disk for the sake of editors.
func overlayModule(overlay map[string]load.Source, n names) diag.List {
	if d := refuseVendored(n); d != nil {
		return d
	}
	name := filepath.Join(n.root, "cue.mod", "module.cue")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		overlay[name] = load.FromString(bareModule)
		return nil
	}
	if err != nil {
		return failure("module", "read %s: %v", n.file(name).File, errors.Unwrap(err))
	}
	file, err := modfile.ParseNonStrict(data, name)
	if err != nil {
		return diag.List{{Pos: n.file(name), Rule: "module", Msg: "is not a module file: " + firstLine(err)}}
	}
	for dep, info := range file.Deps {
		base, _, _ := strings.Cut(dep, "@")
		if base == moduleBase && (dep != schema.ModulePath || newer(info.Version, schema.Version)) {
			return diag.List{{Pos: n.file(name), Rule: "schema-version",
				Msg:  fmt.Sprintf("needs %s %s, this program holds %s %s", dep, info.Version, schema.ModulePath, schema.Version),
				Hint: "use a newer sandlock-compile"}}
		}
	}
	if file.Deps == nil {
		file.Deps = map[string]*modfile.Dep{}
	}
	file.Deps[schema.ModulePath] = &modfile.Dep{Version: schema.Version}
	formatted, err := modfile.Format(file)
	if err != nil {
		return diag.List{{Pos: n.file(name), Rule: "module", Msg: firstLine(err)}}
	}
	overlay[name] = load.FromBytes(formatted)
	return overlayLocalModule(overlay, n, file)
}

// overlayLocalModule undoes what cue.mod/local-module.cue says about the schema: it may replace it by a copy on disk.
func overlayLocalModule(overlay map[string]load.Source, n names, base *modfile.File) diag.List {
	name := filepath.Join(n.root, "cue.mod", "local-module.cue")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failure("module", "read %s: %v", n.file(name).File, errors.Unwrap(err))
	}
	file, err := modfile.ParseLocal(data, name, base)
	if err != nil {
		return diag.List{{Pos: n.file(name), Rule: "module", Msg: "is not a module file: " + firstLine(err)}}
	}
	if file.Deps == nil {
		file.Deps = map[string]*modfile.Dep{}
	}
	file.Deps[schema.ModulePath] = &modfile.Dep{Version: schema.Version}
	formatted, err := modfile.FormatLocal(file, base)
	if err != nil {
		return diag.List{{Pos: n.file(name), Rule: "module", Msg: firstLine(err)}}
	}
	overlay[name] = load.FromBytes(formatted)
	return nil
}

// refuseVendored refuses copies of the schema in CUE's old vendor directories. They cannot be left out of an import,
// and a policy must mean the same whether they are there or not.
func refuseVendored(n names) diag.List {
	for _, kind := range []string{"pkg", "gen", "usr"} {
		dir := filepath.Join(n.root, "cue.mod", kind, filepath.FromSlash(schema.ImportPath))
		if _, err := os.Lstat(dir); err == nil {
			return diag.List{{Pos: n.file(dir), Rule: "vendored-schema", Msg: "a copy of the schema shadows the embedded one",
				Hint: `remove it; for editors, name a copy in cue.mod/local-module.cue with "replaceWith"`}}
		}
	}
	return nil
}

// newer compares two versions of the form v1.2.3. One that it cannot read, such as a pre-release, is newer than all.
func newer(a, b string) bool {
	left, right := strings.Split(strings.TrimPrefix(a, "v"), "."), strings.Split(strings.TrimPrefix(b, "v"), ".")
	if a == "" {
		return false
	}
	if len(left) != 3 {
		return true
	}
	for i := range left {
		x, err := strconv.ParseUint(left[i], 10, 32)
		if err != nil {
			return true
		}
		if y, err := strconv.ParseUint(right[i], 10, 32); err != nil || x != y {
			return x > y
		}
	}
	return false
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
