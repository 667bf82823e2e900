package ir

import (
	"fmt"
	"strings"
)

// viewTotals is the line about a namespaced start at the top of a dump.
func (d *dumper) viewTotals() string {
	v := &d.p.View
	parts := []string{"namespaces " + strings.Join(v.namespaces(), " ")}
	for _, part := range []struct {
		n    int
		noun string
	}{{len(v.Mounts), "mount"}, {len(v.Deny), "denied path"}, {len(v.Protect), "protected pattern"}} {
		if part.n > 0 {
			parts = append(parts, count(part.n, part.noun))
		}
	}
	if v.Root != "" {
		parts = append(parts, "another root")
	}
	return strings.Join(parts, ", ")
}

// namespaces names those that are always made; a user namespace comes with them where the executor may not mount otherwise.
func (v *View) namespaces() []string {
	var names []string
	for _, n := range []struct {
		on   bool
		name string
	}{{v.MapIDs, "user"}, {v.Mount, "mount"}, {v.Mount, "uts"}, {v.PID, "pid"}, {v.PID, "ipc"}, {v.Net, "net"}} {
		if n.on {
			names = append(names, n.name)
		}
	}
	return names
}

var procNames = map[ProcView]string{
	ProcHost:    "the host's, as far as it is granted",
	ProcPrivate: "private: processes of this sandbox only",
	ProcAuto:    "private where the host lets it be mounted, else the host's",
}

// view is what the command sees of the machine, in the order in which it is mounted.
func (d *dumper) view() {
	if !d.p.Namespaced() {
		return
	}
	v := &d.p.View
	d.section("view  what the command sees; a later line covers an earlier one")
	var rows []row
	add := func(origin OriginRef, cells ...string) { rows = append(rows, row{cells: cells, origin: origin}) }
	names := strings.Join(v.namespaces(), " ")
	if v.Optional {
		names += ", where the host lets us"
	}
	add(0, "namespaces", names)
	if v.MapIDs {
		add(v.MapOrigin, "ids", fmt.Sprintf("uid %d, gid %d", v.UID, v.GID))
	}
	if v.Mount {
		add(0, "hostname", d.p.Name)
	}
	if v.Net {
		add(0, "network", "a loopback device of its own, and nothing else")
	}
	if v.Root != "" {
		add(v.RootOrigin, "root", v.Root)
	}
	if v.Dev {
		add(0, "/dev", "own: null, zero, full, random, urandom, tty, pts, and GPUs as granted")
	}
	if v.Sys {
		add(0, "/sys", "the host's, read-only")
	}
	switch {
	case !v.Mount:
	case v.Root != "" && v.Proc == ProcHost:
		add(v.ProcOrigin, "/proc", "none")
	default:
		add(v.ProcOrigin, "/proc", procNames[v.Proc])
	}
	if v.Tmp {
		add(v.TmpOrigin, "/tmp", "private: empty, gone at exit")
	}
	for i := range v.Mounts {
		m := &v.Mounts[i]
		add(m.Origin, "mount", m.Describe())
	}
	for _, p := range v.Protect {
		add(p.Origin, "protect", p.Path)
	}
	for _, p := range v.ReadOnly {
		add(0, "read-only", p)
	}
	for _, p := range v.Deny {
		add(p.Origin, "deny", p.Path)
	}
	for _, p := range v.Masks {
		add(0, "closed", p)
	}
	d.rows(rows)
}

// Describe returns the mount as goldens and explanations name it.
func (m *ViewMount) Describe() string {
	text := m.Target + " = " + m.Source
	if m.ReadOnly {
		text += " (read-only)"
	}
	return text
}

// namespacesView is the view in JSON.
type namespacesView struct {
	Namespaces []string       `json:"namespaces"`
	UID        *uint32        `json:"uid,omitempty"`
	GID        *uint32        `json:"gid,omitempty"`
	Root       string         `json:"root,omitempty"`
	Dev        bool           `json:"dev"`
	Sys        bool           `json:"sys"`
	Proc       string         `json:"proc"` // "host", "private" or "auto"
	PrivateTmp bool           `json:"private_tmp"`
	Mounts     []mountView    `json:"mounts"`
	Protect    []viewPathView `json:"protect"`
	ReadOnly   []string       `json:"read_only"`
	Deny       []viewPathView `json:"deny"`
	Closed     []string       `json:"closed"`
}

type mountView struct {
	Target   string `json:"target"`
	Source   string `json:"source"`
	ReadOnly bool   `json:"read_only"`
	Origin   string `json:"origin,omitempty"`
}

type viewPathView struct {
	Path   string `json:"path"`
	Origin string `json:"origin,omitempty"`
}

func (p *Program) namespacesView() *namespacesView {
	if !p.Namespaced() {
		return nil
	}
	v := &p.View
	out := &namespacesView{
		Namespaces: v.namespaces(), Root: v.Root, Dev: v.Dev, Sys: v.Sys, PrivateTmp: v.Tmp,
		Proc:   map[ProcView]string{ProcHost: "host", ProcPrivate: "private", ProcAuto: "auto"}[v.Proc],
		Mounts: []mountView{}, Protect: p.viewPaths(v.Protect), Deny: p.viewPaths(v.Deny),
		ReadOnly: append([]string{}, v.ReadOnly...), Closed: append([]string{}, v.Masks...),
	}
	if v.MapIDs {
		out.UID, out.GID = &v.UID, &v.GID
	}
	for i := range v.Mounts {
		m := &v.Mounts[i]
		out.Mounts = append(out.Mounts, mountView{m.Target, m.Source, m.ReadOnly, p.at(m.Origin)})
	}
	return out
}

func (p *Program) viewPaths(list []ViewPath) []viewPathView {
	out := []viewPathView{}
	for _, v := range list {
		out = append(out, viewPathView{v.Path, p.at(v.Origin)})
	}
	return out
}
