package kernel

import (
	"errors"
	"fmt"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// A Ruleset is an open Landlock ruleset. See landlock(7).
type Ruleset struct {
	FD int
	FS uint64 // handled filesystem rights
}

// LandlockABI returns the ABI that the running kernel says it enforces, 0 if Landlock is absent or disabled at boot.
func LandlockABI() int {
	v, err := ll.LandlockGetABIVersion()
	if err != nil || v < 0 {
		return 0
	}
	return v
}

// ProvenLandlockABI returns the highest ABI whose largest ruleset can really be created.
func ProvenLandlockABI() int {
	for v := LandlockABI(); v > 0; v-- {
		fs, net, scoped := abi.Supported(v)
		r, err := NewRuleset(fs, net, scoped)
		if err == nil {
			r.Close()
			return v
		}
	}
	return 0
}

// NewRuleset creates a ruleset that denies the given rights where no rule grants them.
func NewRuleset(fs, net, scoped uint64) (*Ruleset, error) {
	fd, err := ll.LandlockCreateRuleset(&ll.RulesetAttr{HandledAccessFS: fs, HandledAccessNet: net, Scoped: scoped}, 0)
	if err != nil {
		return nil, fmt.Errorf("landlock_create_ruleset: %w", err)
	}
	return &Ruleset{FD: fd, FS: fs}, nil
}

// AllowPath grants access beneath the open (O_PATH) descriptor fd. Rights that the ruleset does not handle are
// left out: they are not restricted in the first place. No rule is added when none remains.
func (r *Ruleset) AllowPath(fd int, access uint64) error {
	access &= r.FS
	if access == 0 {
		return nil
	}
	return ll.LandlockAddPathBeneathRule(r.FD, &ll.PathBeneathAttr{AllowedAccess: access, ParentFd: fd}, 0)
}

// AllowPort grants access (bind or connect) on a TCP port. Port 0 with bind allows an ephemeral port.
func (r *Ruleset) AllowPort(port uint16, access uint64) error {
	return ll.LandlockAddNetPortRule(r.FD, &ll.NetPortAttr{AllowedAccess: access, Port: uint64(port)}, 0)
}

// RestrictThread confines the calling thread only.
func (r *Ruleset) RestrictThread() error { return ll.LandlockRestrictSelf(r.FD, 0) }

// RestrictProcess sets no_new_privs and confines every thread of this process.
func (r *Ruleset) RestrictProcess() error {
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := ll.AllThreadsLandlockRestrictSelf(r.FD, 0); err != nil {
		return fmt.Errorf("landlock_restrict_self: %w", err)
	}
	return nil
}

// Close releases the ruleset; a domain made from it stays in force.
func (r *Ruleset) Close() { _ = unix.Close(r.FD) }

// ErrNoLandlock is returned where the kernel has no Landlock.
var ErrNoLandlock = errors.New("the kernel offers no Landlock (needs CONFIG_SECURITY_LANDLOCK and lsm=landlock,…)")

// MakeRight is the right to make an entry of the type that a mode has (inode(7)). No type means a regular file, as
// mknod(2) has it.
func MakeRight(mode uint32) uint64 {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return abi.FSMakeDir
	case unix.S_IFLNK:
		return abi.FSMakeSym
	case unix.S_IFIFO:
		return abi.FSMakeFifo
	case unix.S_IFSOCK:
		return abi.FSMakeSock
	case unix.S_IFCHR:
		return abi.FSMakeChar
	case unix.S_IFBLK:
		return abi.FSMakeBlock
	}
	return abi.FSMakeReg
}
