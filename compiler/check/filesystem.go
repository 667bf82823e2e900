package check

import (
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// grant is a path that the policy opens.
type grant struct {
	path   string
	origin policy.Origin
}

// grants lists the paths of read, write and rules.
func (c *checker) grants() []grant {
	var all []grant
	for _, g := range lower.Grants(c.Policy) {
		all = append(all, grant{g.Path.V, place(g.Path.Origin, g.Origin)})
	}
	return all
}

func checkPaths(c *checker) {
	fs := &c.Filesystem
	pathOf := func(r policy.PathRule) string { return r.Path.V }
	for _, l := range []policy.List[policy.PathRule]{fs.Read, fs.Write, fs.Deny} {
		repeated(l, pathOf, func(again, first policy.Val[policy.PathRule]) {
			if again.Origin.Kind == ir.OriginPreset && first.Origin.Kind == ir.OriginPreset {
				return // presets overlap, and nobody can help it
			}
			c.add(diag.At(again.Origin, "duplicate", "%s is listed twice", again.V.Path.V).AsWarning().WithNote(first.Origin.Place, "first at"))
		})
	}
	for _, r := range fs.Read.Items {
		for _, w := range fs.Write.Items {
			if beneath(r.V.Path.V, w.V.Path.V) {
				d := diag.At(r.Origin, "redundant", "%s can be read already: it lies beneath the write grant %s", r.V.Path.V, w.V.Path.V)
				c.add(d.AsWarning().WithNote(w.Origin.Place, "granted at"))
				break
			}
		}
	}
	for _, w := range fs.Write.Items {
		if w.V.Path.V == "/" {
			c.warnf(w.Origin, "write-root", "the whole file system can be written")
		}
	}
	if len(c.grants())+len(fs.Mount.Items) == 0 {
		d := diag.At(policy.Origin{Place: c.Name.Origin.Place, Path: "filesystem"}, "no-grant", "no path is granted, so no command can be started")
		c.add(d.AsWarning().WithHint("grant at least the command and its libraries"))
	}
}

// beneath tells whether path is parent or lies beneath it, as text.
func beneath(path, parent string) bool { return query.Beneath(path, parent) }

func checkAccessRules(c *checker) {
	handled := ^uint64(0)
	for _, p := range lower.Protections(&c.Protections) {
		if p.Mode.V == "off" {
			handled &^= p.Rights.FS
		}
	}
	for _, it := range c.Filesystem.Rules.Items {
		for _, right := range it.V.Access.Items {
			if since := rightSince(right.V); since > c.Target.Landlock.V {
				c.errorf(right.Origin, "right-target", "%q needs target.landlock %d, the policy has %d", right.V, since, c.Target.Landlock.V)
			}
		}
		if mask := lower.AccessMask(it.V.Access.Values()); mask&handled == 0 {
			c.errorf(it.Origin, "right-off", "the rule grants nothing that is restricted")
		}
	}
}

// rightSince returns the ABI that introduced a right; 0 for a name that is none.
func rightSince(name string) int {
	bit, ok := abi.FSRightByName(name)
	for v := 1; ok && v <= abi.LatestLandlock; v++ {
		if fs, _, _ := abi.Supported(v); fs&bit != 0 {
			return v
		}
	}
	return 0
}

// checkProc refuses grants in /proc that cannot mean what they say. A rule holds for the file that its path leads to
// when the sandbox starts, and then /proc/self is the executor.
func checkProc(c *checker) {
	for _, g := range c.grants() {
		for _, self := range []string{"/proc/self", "/proc/thread-self"} {
			if beneath(g.path, self) {
				d := diag.At(g.origin, "proc-self", "%s would be the directory of sandlock-exec, not of the command", g.path)
				c.add(d.WithHint("grant /proc and write filesystem.proc"))
			}
		}
		if c.Filesystem.Proc.V == "none" && beneath(g.path, "/proc") {
			d := diag.At(g.origin, "proc-none", "%s is granted, and filesystem.proc is \"none\"", g.path)
			c.add(d.WithNote(c.Filesystem.Proc.Origin.Place, "set at"))
		}
	}
}
