package lower

import (
	"slices"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var targetFields = []string{"target.arch", "target.landlock", "target.backend", "protections"}

// Target lowers the architectures, and decides which Landlock rights the ruleset handles: all that the target's ABI
// knows, without the protections that are off. Rights of a newer kernel stay out even where it has them, so that a
// sandbox means the same on every host.
func Target(u *Unit) {
	t := &u.Program.Target
	for _, name := range u.Policy.Target.Arch.Values() {
		if arch, ok := abi.ParseArch(name); ok {
			t.Arches = append(t.Arches, arch)
		}
	}
	slices.Sort(t.Arches)
	t.Arches = slices.Compact(t.Arches)
	t.LandlockABI = uint8(u.Policy.Target.Landlock.V)
	t.Backend = u.Policy.Target.Backend.V

	l := &u.Program.Landlock
	l.Handled.FS, l.Handled.Net, l.Handled.Scoped = abi.Supported(u.Policy.Target.Landlock.V)
	for _, p := range Protections(&u.Policy.Protections) {
		switch p.Mode.V {
		case "off":
			l.Handled.FS &^= p.Rights.FS
			l.Handled.Net &^= p.Rights.Net
			l.Handled.Scoped &^= p.Rights.Scoped
		case "degrade":
			l.Degrade.FS |= p.Rights.FS & l.Handled.FS
			l.Degrade.Net |= p.Rights.Net & l.Handled.Net
			l.Degrade.Scoped |= p.Rights.Scoped & l.Handled.Scoped
		}
	}
}

// Protection is a group of Landlock rights that a policy can waive.
type Protection struct {
	Name   string // of the field in the section protections
	Since  int    // the ABI that introduced it
	Rights ir.Rights
	Mode   policy.Val[string]
}

// Protections lists the protections with what the policy says of each.
func Protections(p *policy.Protections) []Protection {
	return []Protection{
		{"fs_refer", 2, ir.Rights{FS: abi.FSRefer}, p.FSRefer},
		{"fs_truncate", 3, ir.Rights{FS: abi.FSTruncate}, p.FSTruncate},
		{"net_tcp", 4, ir.Rights{Net: abi.NetBindTCP | abi.NetConnectTCP}, p.NetTCP},
		{"fs_ioctl_dev", 5, ir.Rights{FS: abi.FSIoctlDev}, p.FSIoctlDev},
		{"signal_scope", 6, ir.Rights{Scoped: abi.ScopeSignal}, p.SignalScope},
		{"abstract_unix_scope", 6, ir.Rights{Scoped: abi.ScopeAbstractUnix}, p.AbstractUnixScope},
		{"unix_path", 9, ir.Rights{FS: abi.FSResolveUnix}, p.UnixPath},
		{"net_udp", 10, ir.Rights{Net: abi.NetBindUDP | abi.NetConnectSendUDP}, p.NetUDP},
	}
}
