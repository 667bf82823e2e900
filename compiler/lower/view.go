package lower

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

var viewFields = []string{
	"program.uid", "program.gid", "program.strict_lifetime", "filesystem.deny", "filesystem.chroot", "filesystem.mount",
	"filesystem.tmp", "filesystem.protect",
}

// ViewUse is something in a policy that needs namespaces of the sandbox's own.
type ViewUse struct {
	Field  string // of the policy
	Origin policy.Origin
	Why    string // what is done for it, as a sentence about the executor
	Hint   string // how to do without, if there is a way

	mounts   bool // a mount namespace
	pid      bool // a PID namespace
	Optional bool // where the host lets us
}

// ViewUses lists what in a policy needs namespaces; none is what a direct start can do.
func ViewUses(p *policy.Policy) []ViewUse {
	fs := &p.Filesystem
	uses := []ViewUse{}
	add := func(set bool, u ViewUse) {
		if set {
			uses = append(uses, u)
		}
	}
	const (
		maps  = "it maps ids in a user namespace"
		hides = "it mounts over what is closed, and cleans up after the sandbox"
	)
	add(p.Program.UID.Set, ViewUse{Field: "program.uid", Origin: p.Program.UID.Origin, Why: maps})
	add(p.Program.GID.Set, ViewUse{Field: "program.gid", Origin: p.Program.GID.Origin, Why: maps})
	strict := &p.Program.StrictLifetime
	add(strict.V == "true" || strict.V == "prefer", ViewUse{
		Field: "program.strict_lifetime", Origin: strict.Origin, Why: "it is what no process may outlive", mounts: true, pid: true,
		Optional: strict.V == "prefer",
	})
	add(len(fs.Deny.Items) > 0, ViewUse{Field: "filesystem.deny", Origin: listPlace(fs.Deny), Why: hides, mounts: true, pid: true})
	add(len(fs.Protect.Items) > 0, ViewUse{Field: "filesystem.protect", Origin: listPlace(fs.Protect), Why: hides, mounts: true, pid: true})
	add(fs.Chroot.Set, ViewUse{Field: "filesystem.chroot", Origin: fs.Chroot.Origin, Why: "it mounts the new root", mounts: true})
	add(len(fs.Mount.Items) > 0, ViewUse{Field: "filesystem.mount", Origin: listPlace(fs.Mount), Why: "it mounts", mounts: true})
	add(fs.Tmp.V == "private", ViewUse{Field: "filesystem.tmp", Origin: fs.Tmp.Origin, Why: "it mounts an empty /tmp", mounts: true})
	_, asking := procView(p)
	for _, o := range asking {
		add(true, ViewUse{
			Field: "filesystem.proc", Origin: o, Why: "it mounts a /proc of the sandbox's own", mounts: true, pid: true,
			Hint: `write filesystem.proc: "host" to expose the host's processes`,
		})
	}
	add(p.Target.Backend.V == "namespace", ViewUse{
		Field: "target.backend", Origin: p.Target.Backend.Origin, Why: "it makes the namespaces", mounts: true,
	})
	return uses
}

// Mounts reports whether a policy's sandbox has mounts of its own.
func Mounts(p *policy.Policy) bool {
	return slices.ContainsFunc(ViewUses(p), func(u ViewUse) bool { return u.mounts })
}

// listPlace returns the place of a list, or where it has none that of its first element.
func listPlace[T any](l policy.List[T]) policy.Origin {
	o := l.Origin
	if o.File == "" && len(l.Items) > 0 {
		o.Place = l.Items[0].Origin.Place
	}
	return o
}

// Grant is a path that read, write or rules open.
type Grant struct {
	Path   policy.Val[string]
	Origin policy.Origin // of the element
	Writes bool          // more than looking
}

// Grants lists what the policy opens by itself; mounts and an own /tmp open more.
func Grants(p *policy.Policy) []Grant {
	var all []Grant
	for _, it := range p.Filesystem.Read.Items {
		all = append(all, Grant{it.V.Path, it.Origin, false})
	}
	for _, it := range p.Filesystem.Write.Items {
		all = append(all, Grant{it.V.Path, it.Origin, true})
	}
	for _, it := range p.Filesystem.Rules.Items {
		rule := ir.PathRule{Access: AccessMask(it.V.Access.Values()), Kind: ir.PathRequired}
		all = append(all, Grant{it.V.Path, it.Origin, rule.Writes()})
	}
	return all
}

// procView decides what /proc is, and returns what asks for an own one. A rootfs has none by itself, so that beneath
// another root every grant in /proc asks, as does a GPU, whose libraries read there.
func procView(p *policy.Policy) (ir.ProcView, []policy.Origin) {
	proc := p.Filesystem.Proc
	switch proc.V {
	case "private":
		return ir.ProcPrivate, []policy.Origin{proc.Origin}
	case "auto":
	default:
		return ir.ProcHost, nil
	}
	var asking []policy.Origin
	rooted := p.Filesystem.Chroot.Set
	for _, g := range Grants(p) {
		if showsProcesses(g.Path.V) || rooted && query.Beneath(g.Path.V, "/proc") {
			asking = append(asking, g.Origin)
		}
	}
	if gpu := p.Limits.GPUDevices.Mode; rooted && gpu.Set && gpu.V != "none" {
		asking = append(asking, gpu.Origin)
	}
	if len(asking) == 0 {
		return ir.ProcHost, nil
	}
	return ir.ProcAuto, asking
}

// showsProcesses tells whether a grant of path opens the directories of processes in /proc.
func showsProcesses(path string) bool {
	if path == "/" || path == "/proc" {
		return true
	}
	rest, ok := strings.CutPrefix(path, "/proc/")
	if !ok {
		return false
	}
	entry, _, _ := strings.Cut(rest, "/")
	_, err := strconv.ParseUint(entry, 10, 32)
	return entry == "self" || entry == "thread-self" || strings.Contains(entry, "${") || err == nil
}

// View lowers what is mounted for the command, and the namespaces that this takes. Where it surely mounts, files are shown by
// mounts, and whoever would have opens notified for them does not.
func View(u *Unit) {
	uses := ViewUses(u.Policy)
	if u.Policy.Target.Backend.V == "notify" {
		uses = nil // what can do without does, the rest was refused
	}
	if len(uses) == 0 {
		return
	}
	v := &u.Program.View
	u.Program.Process.Start = ir.StartNamespaced
	v.Optional = !slices.ContainsFunc(uses, func(use ViewUse) bool { return !use.Optional })
	for _, use := range uses {
		v.Mount, v.PID = v.Mount || use.mounts, v.PID || use.pid
	}
	if ids := &u.Policy.Program; ids.UID.Set {
		v.MapIDs, v.UID, v.GID, v.MapOrigin = true, ids.UID.V, ids.GID.V, u.ref(ids.UID.Origin)
	}
	if !v.Mount {
		return
	}
	src := &u.Policy.Filesystem
	if src.Chroot.Set {
		v.Root, v.RootOrigin = src.Chroot.V, u.ref(src.Chroot.Origin)
	}
	proc, asking := procView(u.Policy)
	v.Proc, v.ProcOrigin = proc, u.ref(src.Proc.Origin)
	if proc == ir.ProcAuto {
		v.ProcOrigin = u.derived(asking[0])
	}
	if src.Tmp.V == "private" {
		v.Tmp, v.TmpOrigin = true, u.ref(src.Tmp.Origin)
	}
	for _, it := range src.Mount.Items {
		v.Mounts = append(v.Mounts, ir.ViewMount{
			Target: it.V.Target.V, Source: it.V.Source.V, ReadOnly: it.V.Mode.V == "ro", Origin: u.ref(it.Origin),
		})
	}
	for _, it := range src.Deny.Items {
		v.Deny = append(v.Deny, ir.ViewPath{Path: it.V.Path.V, Origin: u.ref(it.Origin)})
	}
	for _, it := range src.Protect.Items {
		v.Protect = append(v.Protect, ir.ViewPath{Path: it.V, Origin: u.ref(it.Origin)})
	}
	handled := u.Program.Landlock.Handled.FS
	grantMounts(u, ir.ReadRights(handled), ir.WriteRights(handled))
}

// grantMounts grants what is mounted: who mounts something wants it used.
func grantMounts(u *Unit, readOnly, writable uint64) {
	src := &u.Policy.Filesystem
	if u.Program.View.Tmp && writable != 0 {
		addPath(u, ir.PathRule{Path: "/tmp", Access: writable, Kind: ir.PathRequired, Origin: u.derived(src.Tmp.Origin)})
	}
	for _, it := range src.Mount.Items {
		access := writable
		if it.V.Mode.V == "ro" {
			access = readOnly
		}
		if access != 0 {
			addPath(u, ir.PathRule{Path: it.V.Target.V, Access: access, Kind: ir.PathRequired, Origin: u.derived(it.Origin)})
		}
	}
	u.Filter.WriteGrants = writesAnything(u)
}
