package lower

import (
	"slices"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

func TestShowsProcesses(t *testing.T) {
	for path, want := range map[string]bool{
		"/":                    true,
		"/proc":                true,
		"/proc/self":           true,
		"/proc/self/maps":      true,
		"/proc/thread-self/io": true,
		"/proc/1":              true,
		"/proc/4711/environ":   true,
		"/proc/${x}":           true,
		"/proc/cpuinfo":        false,
		"/proc/sys/vm":         false,
		"/proc/sys":            false,
		"/processes":           false,
		"/usr":                 false,
		"${cwd}/proc":          false,
		"/proc/driver/nvidia":  false,
		"/proc/version_1":      false,
	} {
		if got := showsProcesses(path); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
}

// lowered runs the passes that decide the view, in their order.
func lowered(p *policy.Policy) *Unit {
	u := New(p)
	for _, pass := range []func(*Unit){Target, Program, Filesystem, View, Network, Limits, KernelView} {
		pass(u)
	}
	return u
}

func str(s string) policy.Val[string] { return policy.Val[string]{V: s, Set: true} }

func paths(list ...string) (l policy.List[policy.PathRule]) {
	for _, p := range list {
		l.Items = append(l.Items, policy.Val[policy.PathRule]{V: policy.PathRule{Path: str(p)}, Set: true})
	}
	return l
}

// TestViewNet: a network namespace of its own for a sandbox that may reach nothing, and only for such.
func TestViewNet(t *testing.T) {
	rule := policy.List[policy.NetRule]{Items: []policy.Val[policy.NetRule]{{V: policy.NetRule{Kind: policy.TargetAny, TCP: true, Ports: policy.PortSet{All: true}}}}}
	ports := policy.List[policy.PortSet]{Items: []policy.Val[policy.PortSet]{{V: policy.PortSet{Ranges: []policy.PortRange{{Lo: 22, Hi: 22}}}}}}
	for name, tc := range map[string]struct {
		change func(*policy.Policy)
		want   bool
	}{
		"nothing allowed":           {func(*policy.Policy) {}, true},
		"no PID namespace":          {func(p *policy.Policy) { p.Filesystem.Deny = policy.List[policy.PathRule]{} }, false},
		"no view of it":             {func(p *policy.Policy) { p.Filesystem.Read = paths("/usr", "/proc/cpuinfo") }, false},
		"allow":                     {func(p *policy.Policy) { p.Network.Allow = rule }, false},
		"deny":                      {func(p *policy.Policy) { p.Network.Deny = rule }, false},
		"allow_bind":                {func(p *policy.Policy) { p.Network.AllowBind = ports }, false},
		"deny_bind":                 {func(p *policy.Policy) { p.Network.DenyBind = ports }, false},
		"port_remap":                {func(p *policy.Policy) { p.Network.PortRemap.V = true }, false},
		"resolver":                  {func(p *policy.Policy) { p.Network.Resolver.V = true }, false},
		"net_tcp off":               {func(p *policy.Policy) { p.Protections.NetTCP.V = "off" }, false},
		"net_tcp may degrade":       {func(p *policy.Policy) { p.Protections.NetTCP.V = "degrade" }, true},
		"Landlock without ports":    {func(p *policy.Policy) { p.Target.Landlock.V = 3 }, false},
		"abstract scope off":        {func(p *policy.Policy) { p.Protections.AbstractUnixScope.V = "off" }, true}, // no unix sockets
		"unix":                      {func(p *policy.Policy) { p.Network.Unix.Mode.V = "granted" }, true},
		"unix, abstract scope off":  {func(p *policy.Policy) { p.Network.Unix.Mode.V, p.Protections.AbstractUnixScope.V = "granted", "off" }, false},
		"unix, Landlock without it": {func(p *policy.Policy) { p.Network.Unix.Mode.V, p.Target.Landlock.V = "granted", 5 }, false},
		"http": {func(p *policy.Policy) {
			rule := policy.HTTPRule{Method: "*", Host: "*", Path: "/", Prefix: true}
			entry := policy.HTTPEntry{Rule: policy.Val[policy.HTTPRule]{V: rule}}
			p.HTTP.Allow.Items = []policy.Val[policy.HTTPAllow]{{V: policy.HTTPAllow{HTTPEntry: entry}}}
		}, false},
	} {
		p := policyWith(6, "strict")
		p.Filesystem.Read, p.Filesystem.Deny = paths("/usr", "/proc/net"), paths("/usr/local")
		p.Filesystem.Tmp.V = "private"
		tc.change(p)
		if got := lowered(p).Program.View.Net; got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// TestViewNamespaces: each feature takes the namespaces that it needs, and a policy without any takes none.
func TestViewNamespaces(t *testing.T) {
	for name, tc := range map[string]struct {
		change         func(*policy.Policy)
		start          ir.Start
		mount, pid, id bool
		proc           ir.ProcView
	}{
		"nothing":              {func(*policy.Policy) {}, ir.StartDirect, false, false, false, 0},
		"auto, no processes":   {func(p *policy.Policy) { p.Filesystem.Read = paths("/proc/cpuinfo") }, ir.StartDirect, false, false, false, 0},
		"auto, processes":      {func(p *policy.Policy) { p.Filesystem.Read = paths("/proc") }, ir.StartNamespaced, true, true, false, ir.ProcAuto},
		"host, processes":      {func(p *policy.Policy) { p.Filesystem.Read, p.Filesystem.Proc.V = paths("/"), "host" }, ir.StartDirect, false, false, false, 0},
		"none, everything":     {func(p *policy.Policy) { p.Filesystem.Read, p.Filesystem.Proc.V = paths("/"), "none" }, ir.StartDirect, false, false, false, 0},
		"private":              {func(p *policy.Policy) { p.Filesystem.Proc.V = "private" }, ir.StartNamespaced, true, true, false, ir.ProcPrivate},
		"chroot":               {func(p *policy.Policy) { p.Filesystem.Chroot = str("/srv") }, ir.StartNamespaced, true, false, false, 0},
		"chroot, file in proc": {func(p *policy.Policy) { p.Filesystem.Chroot, p.Filesystem.Read = str("/srv"), paths("/proc/cpuinfo") }, ir.StartNamespaced, true, true, false, ir.ProcAuto},
		"tmp":                  {func(p *policy.Policy) { p.Filesystem.Tmp = str("private") }, ir.StartNamespaced, true, false, false, 0},
		"deny":                 {func(p *policy.Policy) { p.Filesystem.Deny = paths("/x") }, ir.StartNamespaced, true, true, false, 0},
		"protect":              {func(p *policy.Policy) { p.Filesystem.Protect.Items = []policy.Val[string]{str("x")} }, ir.StartNamespaced, true, true, false, 0},
		"strict_lifetime":      {func(p *policy.Policy) { p.Program.StrictLifetime.V = "true" }, ir.StartNamespaced, true, true, false, 0},
		"backend":              {func(p *policy.Policy) { p.Target.Backend.V = "namespace" }, ir.StartNamespaced, true, false, false, 0},
		"mount": {func(p *policy.Policy) {
			p.Filesystem.Mount.Items = []policy.Val[policy.Mount]{{V: policy.Mount{Target: str("/a"), Source: str("/b")}}}
		}, ir.StartNamespaced, true, false, false, 0},
		"ids": {func(p *policy.Policy) { p.Program.UID.Set, p.Program.GID.Set = true, true }, ir.StartNamespaced, false, false, true, 0},
	} {
		p := policyWith(6, "strict")
		p.Filesystem.Proc.V = "auto"
		tc.change(p)
		u := lowered(p)
		v := &u.Program.View
		if u.Program.Process.Start != tc.start || v.Mount != tc.mount || v.PID != tc.pid || v.MapIDs != tc.id || v.Proc != tc.proc {
			t.Errorf("%s: got start %d and %+v", name, u.Program.Process.Start, v)
		}
	}
}

// TestKernelPaths: what stays closed is what grants reach, from above and from below.
func TestKernelPaths(t *testing.T) {
	p := policyWith(6, "strict")
	p.Filesystem.Tmp, p.Filesystem.Proc.V = str("private"), "host"
	p.Filesystem.Read, p.Filesystem.Write = paths("/proc", "/proc/kcore"), paths("/proc/sys/vm")
	v := lowered(p).Program.View
	if len(v.Masks) != 17 || !slices.Equal(v.ReadOnly, []string{"/proc/sys"}) {
		t.Errorf("got masks %v and read-only %v", v.Masks, v.ReadOnly)
	}
}
