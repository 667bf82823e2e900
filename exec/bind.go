package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
)

// binding holds the values of parameters and built-ins for one run.
type binding struct {
	program *ir.Program
	values  map[string]string
	tmp     string // directory made for ${tmp}, to be removed; "" if the program does not use it
}

func (b *binding) lookup(name string) (string, bool) {
	v, ok := b.values[name]
	return v, ok
}

// bind gives every parameter its value and reports all mistakes at once. dir is what ${cwd} means, "" the working
// directory.
func bind(p *ir.Program, given map[string]string, environ []string, dir string) (*binding, []string) {
	return bindUsed(p, usedNames(p), given, environ, dir)
}

// bindUsed is bind for the names that are used; a directory for ${tmp} is made only if that is one.
func bindUsed(p *ir.Program, used map[string]bool, given map[string]string, environ []string, dir string) (*binding, []string) {
	b := &binding{program: p, values: map[string]string{}}
	var problems []string
	if err := b.builtins(used, environ, dir); err != nil {
		problems = append(problems, err.Error())
	}
	for i := range p.Params {
		q := &p.Params[i]
		value, ok := given[q.Name]
		if !ok && !q.HasDefault {
			if used[q.Name] {
				problems = append(problems, fmt.Sprintf("parameter %q has no value: give it with -p %s=…%s", q.Name, q.Name, describe(q)))
			}
			continue
		}
		if !ok {
			value = q.Default
		}
		bound, err := b.param(q, value)
		if err != nil {
			problems = append(problems, fmt.Sprintf("parameter %q: %v", q.Name, err))
			continue
		}
		b.values[q.Name] = bound
	}
	for name := range given {
		if !slices.ContainsFunc(p.Params, func(q ir.Param) bool { return q.Name == name }) {
			problems = append(problems, fmt.Sprintf("the policy declares no parameter %q%s", name, declared(p)))
		}
	}
	slices.Sort(problems)
	return b, problems
}

func describe(q *ir.Param) string {
	if q.Description == "" {
		return ""
	}
	return " (" + q.Description + ")"
}

func declared(p *ir.Program) string {
	if len(p.Params) == 0 {
		return ": it declares none"
	}
	var names []string
	for _, q := range p.Params {
		names = append(names, q.Name)
	}
	return "; it declares " + strings.Join(names, ", ")
}

// param checks a value against its declaration, first as text, then in the file system. Path values are replaced by
// what they resolve to now, so that a symbolic link cannot lead out of a declared parent later.
func (b *binding) param(q *ir.Param, value string) (string, error) {
	if isPathParam(q.Type) && !filepath.IsAbs(value) {
		abs, err := filepath.Abs(value)
		if err != nil {
			return "", err
		}
		value = abs
	}
	value, err := ir.Bind(*q, value)
	if err != nil || !isPathParam(q.Type) {
		return value, err
	}
	resolved, err := resolve(value, q.Type)
	if err != nil {
		return "", err
	}
	if len(q.Under) == 0 {
		return resolved, nil
	}
	var parents []string
	for _, t := range q.Under {
		parent, err := ir.ExpandPath(t, b.lookup)
		if err != nil {
			return "", err
		}
		if real, err := filepath.EvalSymlinks(parent); err == nil && beneath(resolved, real) {
			return resolved, nil
		}
		parents = append(parents, parent)
	}
	return "", fmt.Errorf("%s resolves to %s, which is not beneath %s", value, resolved, strings.Join(parents, " or "))
}

func isPathParam(t ir.ParamType) bool {
	return t == ir.ParamDir || t == ir.ParamFile || t == ir.ParamPath
}

// resolve follows every symbolic link. A ParamPath that does not exist resolves as far as its directory.
func resolve(path string, t ir.ParamType) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) && t == ir.ParamPath {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	if err != nil {
		return "", err
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	switch {
	case t == ir.ParamDir && !st.IsDir():
		return "", fmt.Errorf("%s is not a directory", path)
	case t == ir.ParamFile && st.IsDir():
		return "", fmt.Errorf("%s is a directory, want a file", path)
	}
	return real, nil
}

// beneath reports whether path is parent or lies beneath it. Both are clean and absolute.
func beneath(path, parent string) bool {
	return path == parent || parent == "/" || strings.HasPrefix(path, parent+"/")
}

// builtins binds the names that need no declaration, as far as the program uses them.
func (b *binding) builtins(used map[string]bool, environ []string, dir string) error {
	b.values["uid"] = strconv.Itoa(os.Getuid())
	if used["cwd"] {
		cwd, err := filepath.Abs(dir)
		if err == nil {
			cwd, err = filepath.EvalSymlinks(cwd)
		}
		if err != nil {
			return fmt.Errorf("${cwd}: working directory: %w", err)
		}
		b.values["cwd"] = cwd
	}
	if used["home"] {
		home := lookupEnv(environ, "HOME")
		real, err := filepath.EvalSymlinks(home)
		if home == "" || !filepath.IsAbs(home) || err != nil {
			return fmt.Errorf("${home}: HOME is %q, want the path of a directory", home)
		}
		b.values["home"] = real
	}
	if used["tmp"] {
		base := lookupEnv(environ, "TMPDIR")
		if !filepath.IsAbs(base) {
			base = "/tmp"
		}
		dir, err := os.MkdirTemp(base, "sandlock-")
		if err != nil {
			return fmt.Errorf("${tmp}: %w", err)
		}
		b.tmp = dir
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return fmt.Errorf("${tmp}: %w", err)
		}
		b.tmp, b.values["tmp"] = dir, dir
	}
	return nil
}

// usedNames lists the names that the program's templates use.
func usedNames(p *ir.Program) map[string]bool {
	used := map[string]bool{}
	for _, t := range templates(p) {
		names, err := ir.Names(t)
		if err != nil {
			continue // Validate has refused such a program
		}
		for _, n := range names {
			used[n] = true
		}
	}
	for _, r := range p.Landlock.Ports {
		if r.Param != "" {
			used[r.Param] = true
		}
	}
	for _, r := range p.Net.DenyBind {
		if r.Param != "" {
			used[r.Param] = true
		}
	}
	return used
}

// templates lists every template of the program.
func templates(p *ir.Program) []ir.Template {
	list := append([]ir.Template{p.Process.Exec, p.Process.Cwd}, p.Process.Args...)
	for _, v := range p.Process.Env {
		list = append(list, v.Value)
	}
	for _, r := range p.Landlock.Paths {
		list = append(list, r.Path)
	}
	for _, q := range p.Params {
		list = append(list, q.Under...)
	}
	list = append(list, p.View.Root, p.Branch.Workdir, p.Branch.Storage)
	for _, m := range p.View.Mounts {
		list = append(list, m.Target, m.Source)
	}
	for _, v := range slices.Concat(p.View.Deny, p.View.Protect) {
		list = append(list, v.Path)
	}
	for _, r := range p.Rules {
		list = append(list, r.Exe, r.Path)
		for _, c := range r.Do {
			list = append(list, c.Path)
		}
	}
	for _, u := range p.Net.UnixPaths {
		list = append(list, u.Path)
	}
	list = append(list, p.HTTP.CA, p.HTTP.Key, p.HTTP.CAOut, p.HTTP.UpstreamCA)
	for _, f := range p.HTTP.InjectCA {
		list = append(list, f.Path)
	}
	for _, c := range p.HTTP.Credentials {
		if c.Kind == ir.CredentialFile {
			list = append(list, c.Source)
		}
	}
	return list
}

func lookupEnv(environ []string, name string) string {
	value := ""
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}
