package kernel

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir/abi"
)

func TestMakeRight(t *testing.T) {
	for mode, want := range map[uint32]uint64{
		0:                    abi.FSMakeReg,
		0o4755:               abi.FSMakeReg,
		unix.S_IFREG | 0o600: abi.FSMakeReg,
		unix.S_IFDIR | 0o700: abi.FSMakeDir,
		unix.S_IFLNK:         abi.FSMakeSym,
		unix.S_IFIFO | 0o644: abi.FSMakeFifo,
		unix.S_IFSOCK:        abi.FSMakeSock,
		unix.S_IFCHR:         abi.FSMakeChar,
		unix.S_IFBLK:         abi.FSMakeBlock,
	} {
		if got := MakeRight(mode); got != want {
			t.Errorf("MakeRight(%#o) = %#x, want %#x", mode, got, want)
		}
	}
}
