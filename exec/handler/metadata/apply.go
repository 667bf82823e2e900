package metadata

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// applyMode sets permission bits. A sandbox gives nobody its user's rights: setuid and setgid bits on files would
// let whoever runs the file outside act as that user, so they are refused; setgid on a directory only hands down a
// group.
func applyMode(p kernel.Pin, mode uint32) error {
	if mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		var st unix.Stat_t
		if err := unix.Fstatat(p.FD, "", &st, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || mode&unix.S_ISUID != 0 {
			return unix.EPERM
		}
	}
	err := unix.Fchmodat(p.FD, "", mode, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = unix.Chmod(p.SelfPath(), mode) // before fchmodat2 (Linux 6.6)
	}
	return err
}

func applyOwner(p kernel.Pin, uid, gid int) error {
	return unix.Fchownat(p.FD, "", uid, gid, unix.AT_EMPTY_PATH)
}

func applyTimes(p kernel.Pin, times [2]unix.Timespec) error {
	err := unix.UtimesNanoAt(p.FD, "", times[:], unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, p.SelfPath(), times[:], 0) // before AT_EMPTY_PATH (Linux 5.8)
	}
	return err
}
