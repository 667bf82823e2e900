package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

func checkParams(c *checker) {
	for _, it := range c.Params.Items {
		p := it.V
		checkDefault(c, p)
		if isPath(p.Type.V) {
			for _, under := range p.Under.Items {
				checkUnder(c, under)
			}
		} else if len(p.Under.Items) > 0 {
			c.errorf(p.Under.Origin, "param-under", "under is for parameters that are paths, not for type %q", p.Type.V)
		}
	}
}

func checkDefault(c *checker, p policy.Param) {
	if !p.Default.Set {
		return
	}
	if strings.Contains(p.Default.V, "${") {
		d := diag.At(p.Default.Origin, "param-default", "a default cannot use parameters: %q", p.Default.V)
		c.add(d.WithHint("use the built-in parameter itself where the value is needed"))
		return
	}
	if _, err := ir.Bind(lower.Param(p), p.Default.V); err != nil {
		c.errorf(p.Default.Origin, "param-default", "the default does not fit: %v", err)
	}
}

// checkUnder: parents are resolved before parameters are bound, so they know the built-in names only.
func checkUnder(c *checker, under policy.Val[string]) {
	names, err := ir.Names(under.V)
	if err != nil {
		return // the loader has refused it
	}
	for _, name := range names {
		if !slices.Contains(ir.Builtins, name) {
			c.errorf(under.Origin, "param-under", "%q cannot be used here, only %s can", name, strings.Join(ir.Builtins, ", "))
		}
	}
	c.path(under)
}

func isPath(paramType string) bool {
	return paramType == "dir" || paramType == "file" || paramType == "path"
}

// checkTemplates looks at every text in which parameters are replaced. It comes after checkParams.
func checkTemplates(c *checker) {
	c.path(c.Program.Exec)
	c.path(c.Program.Cwd)
	for _, it := range c.Program.Args.Items {
		c.template(it.V, it.Origin)
	}
	for _, it := range c.Program.Env.Items {
		c.template(it.V.Value, it.Origin)
	}
	for _, l := range []policy.List[policy.PathRule]{c.Filesystem.Read, c.Filesystem.Write, c.Filesystem.Deny} {
		for _, it := range l.Items {
			c.path(it.V.Path)
		}
	}
	for _, it := range c.Filesystem.Rules.Items {
		c.path(it.V.Path)
	}
	c.path(c.Filesystem.Chroot)
	for _, it := range c.Filesystem.Mount.Items {
		c.path(it.V.Target)
		c.path(it.V.Source)
	}
	c.path(c.Filesystem.Workdir)
	c.path(c.Filesystem.Storage)
	for _, it := range c.Filesystem.Protect.Items {
		c.path(it)
	}
	for _, it := range c.Network.Allow.Items {
		c.ports(it.V.Ports, it.Origin)
	}
	for _, l := range []policy.List[policy.PortSet]{c.Network.AllowBind, c.Network.DenyBind} {
		for _, it := range l.Items {
			c.ports(it.V, it.Origin)
		}
	}
	c.httpPaths(&c.HTTP)
	for _, it := range c.Rules.Items {
		c.path(it.V.If.Exe)
		c.path(it.V.If.Path)
		for _, do := range it.V.Do.Items {
			c.path(do.V.DenyPath)
		}
	}
	for _, it := range c.Tests.Items {
		c.path(it.V.Case.Open)
	}
	for _, it := range c.Params.Items {
		if !c.used[it.V.Name] {
			c.warnf(it.Origin, "param-unused", "nothing uses this parameter")
		}
	}
}

func (c *checker) httpPaths(h *policy.HTTP) {
	for _, v := range []policy.Val[string]{h.CA, h.Key, h.CAOut, h.UpstreamCA} {
		c.path(v)
	}
	for _, it := range h.InjectCA.Items {
		c.path(policy.Val[string]{V: it.V, Set: true, Origin: it.Origin})
	}
	for _, it := range h.Credentials.Items {
		if path, ok := strings.CutPrefix(it.V.Source.V, "file:"); ok {
			c.path(policy.Val[string]{V: path, Set: true, Origin: it.V.Source.Origin})
		}
	}
}

// template marks the parameters of a text as used and reports those that are not declared.
func (c *checker) template(text string, o policy.Origin) (names []string) {
	names, err := ir.Names(text)
	if err != nil {
		return nil // the loader has refused it
	}
	for _, name := range names {
		if c.typeOf(name) == "" {
			c.unknown(o, "param-undeclared", "parameter", name, c.paramNames())
		}
		c.used[name] = true
	}
	return names
}

// path checks a path with parameters. A parameter that is a path can only stand first; the others stand for a part of
// the path that follows.
func (c *checker) path(v policy.Val[string]) {
	if v.V == "" {
		return
	}
	for _, name := range c.template(v.V, v.Origin) {
		typ := c.typeOf(name)
		first := strings.HasPrefix(v.V, "${"+name+"}")
		inside := strings.Count(v.V, "${"+name+"}") > 1 || !first
		switch {
		case typ == "":
		case first && !isPath(typ):
			c.errorf(v.Origin, "param-type", "a path cannot begin with %q, which is of type %q", name, typ)
		case inside && isPath(typ):
			c.errorf(v.Origin, "param-type", "%q is a whole path (type %q) and can only stand at the beginning", name, typ)
		case typ == "port":
			c.errorf(v.Origin, "param-type", "%q is a port and cannot be part of a path", name)
		}
	}
}

func (c *checker) ports(set policy.PortSet, o policy.Origin) {
	for _, name := range set.Params {
		switch typ := c.typeOf(name); typ {
		case "":
			c.unknown(o, "param-undeclared", "parameter", name, c.paramNames())
		case "port":
		default:
			c.errorf(o, "param-type", "%q is of type %q, a port is wanted", name, typ)
		}
		c.used[name] = true
	}
}

// typeOf returns the type of a parameter, declared or built in; "" if there is none.
func (c *checker) typeOf(name string) string {
	switch {
	case name == "uid":
		return "int"
	case slices.Contains(ir.Builtins, name):
		return "dir"
	}
	for _, it := range c.Params.Items {
		if it.V.Name == name {
			return it.V.Type.V
		}
	}
	return ""
}

func (c *checker) paramNames() []string {
	names := slices.Clone(ir.Builtins)
	for _, it := range c.Params.Items {
		names = append(names, it.V.Name)
	}
	return names
}

// join writes a list for a message: a, b and c.
func join(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return fmt.Sprintf("%s and %s", strings.Join(words[:len(words)-1], ", "), words[len(words)-1])
}
