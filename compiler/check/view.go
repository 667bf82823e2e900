package check

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

// checkChroot: another root must be another one, and has no /proc but one of the sandbox's own.
func checkChroot(c *checker) {
	fs := &c.Filesystem
	if !fs.Chroot.Set {
		return
	}
	if fs.Chroot.V == "/" {
		c.add(diag.At(fs.Chroot.Origin, "chroot-root", "that is the root already").WithHint("leave filesystem.chroot out"))
	}
	if fs.Proc.V != "host" {
		return
	}
	for _, g := range c.grants() {
		if g.path == "/" || beneath(g.path, "/proc") {
			d := diag.At(g.origin, "chroot-proc", "beneath filesystem.chroot there is no /proc of the host to show")
			c.add(d.WithNote(fs.Proc.Origin.Place, "asked for at").WithHint(`write filesystem.proc: "private"`))
		}
	}
}

func checkMounts(c *checker) {
	list := c.Filesystem.Mount
	repeated(list, func(m policy.Mount) string { return m.Target.V }, func(again, first policy.Val[policy.Mount]) {
		c.add(diag.At(again.Origin, "mount-target", "something else is mounted at %s", again.V.Target.V).WithNote(first.Origin.Place, "mounted at"))
	})
	for _, it := range list.Items {
		target := it.V.Target.V
		o := place(it.V.Target.Origin, it.Origin)
		switch {
		case target == "/":
			c.add(diag.At(o, "mount-target", "nothing can be mounted over the root").WithHint("write filesystem.chroot"))
		case beneath(target, "/proc"):
			c.add(diag.At(o, "mount-target", "/proc is no place to mount at").WithHint("write filesystem.proc"))
		}
		for _, closed := range ir.KernelClosed {
			if beneath(closed, "/sys") && beneath(target, closed) {
				c.errorf(o, "kernel-closed", "%s is always closed in a sandbox with mounts of its own", closed)
			}
		}
		c.mountSource(it.V.Source.V, place(it.V.Source.Origin, it.Origin))
		if it.V.Mode.V != "ro" {
			continue
		}
		for _, w := range c.Filesystem.Write.Items {
			if beneath(w.V.Path.V, target) {
				d := diag.At(w.Origin, "no-effect", "%s cannot be written: it lies in a read-only mount", w.V.Path.V)
				c.add(d.AsWarning().WithNote(it.Origin.Place, "mounted at"))
			}
		}
	}
}

// mountSource: elsewhere nothing closes what is closed in /proc and /sys, and what is mounted beneath a source comes along.
func (c *checker) mountSource(source string, o policy.Origin) {
	if beneath(source, "/proc") {
		c.add(diag.At(o, "mount-source", "that is a /proc of the host, with its processes").WithHint("write filesystem.proc"))
		return
	}
	for _, closed := range ir.KernelClosed {
		switch {
		case beneath(source, closed):
			c.errorf(o, "kernel-closed", "%s is always closed in a sandbox with mounts of its own", closed)
			return
		case beneath(closed, source):
			c.warnf(o, "mount-source", "%s brings along what would be closed at its own place, such as %s", source, closed)
			return
		}
	}
}

func checkDeny(c *checker) {
	opened := c.grants()
	for _, it := range c.Filesystem.Mount.Items {
		opened = append(opened, grant{it.V.Target.V, place(it.V.Target.Origin, it.Origin)})
	}
	for _, it := range c.Filesystem.Deny.Items {
		denied := it.V.Path.V
		if denied == "/" {
			c.add(diag.At(it.Origin, "deny-root", "nothing would be left").WithHint("whatever is not granted is refused: grant less"))
			continue
		}
		for _, g := range opened {
			if beneath(g.path, denied) {
				d := diag.At(g.origin, "no-effect", "%s grants nothing: filesystem.deny closes it", g.path)
				c.add(d.AsWarning().WithNote(it.Origin.Place, "closed at"))
			}
		}
	}
}

func checkProtect(c *checker) {
	fs := &c.Filesystem
	same := func(pattern string) string { return pattern }
	repeated(fs.Protect, same, func(again, first policy.Val[string]) {
		if again.Origin.Kind == ir.OriginPreset && first.Origin.Kind == ir.OriginPreset {
			return
		}
		c.add(diag.At(again.Origin, "duplicate", "%s is listed twice", again.V).AsWarning().WithNote(first.Origin.Place, "first at"))
	})
	for _, it := range fs.Protect.Items {
		_, rest, param := strings.Cut(it.V, "}")
		if param && strings.HasPrefix(it.V, "${") && rest != "" && rest[0] != '/' {
			c.errorf(it.Origin, "param-type", "a parameter at the begin of a pattern is a whole path: a slash must follow")
		}
	}
	if c.writesSomewhere() {
		return
	}
	for _, it := range fs.Protect.Items {
		c.warnf(it.Origin, "no-effect", "there is no write grant that it could narrow")
	}
}

func (c *checker) writesSomewhere() bool {
	fs := &c.Filesystem
	if slices.ContainsFunc(lower.Grants(c.Policy), func(g lower.Grant) bool { return g.Writes }) {
		return true
	}
	for _, it := range fs.Mount.Items {
		if it.V.Mode.V != "ro" {
			return true
		}
	}
	return fs.Tmp.V == "private"
}

// checkKernelPaths refuses grants of what no sandbox with mounts of its own sees or changes, where a policy names it.
func checkKernelPaths(c *checker) {
	if !lower.Mounts(c.Policy) {
		return
	}
	for _, g := range lower.Grants(c.Policy) {
		path, o := g.Path.V, place(g.Path.Origin, g.Origin)
		for _, closed := range ir.KernelClosed {
			if beneath(path, closed) {
				c.errorf(o, "kernel-closed", "%s is always closed in a sandbox with mounts of its own", closed)
			}
		}
		for _, fixed := range ir.KernelReadOnly {
			if g.Writes && beneath(path, fixed) {
				c.errorf(o, "kernel-read-only", "%s can never be written in a sandbox with mounts of its own", fixed)
			}
		}
	}
}

// checkNamespaces refuses what needs namespaces where there is no supervisor to make them.
func checkNamespaces(c *checker) {
	if !c.Program.NoSupervisor.V {
		return
	}
	for _, use := range lower.ViewUses(c.Policy) {
		d := diag.At(use.Origin, "no-supervisor", "needs a supervisor (%s), and program.no_supervisor is set", use.Why)
		d.Hint = use.Hint
		c.add(d.WithNote(c.Program.NoSupervisor.Origin.Place, "set at"))
	}
}
