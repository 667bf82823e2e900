// Package abi names the kernel's numbers: system calls, errno values, Landlock rights, capabilities.
//
// It carries its own tables, since policies are compiled for amd64 and arm64 on any host: golang.org/x/sys names
// only the host's. zsyscalls.go is generated. The package decides nothing and imports nothing of the project.
package abi

// Arch is an architecture that programs are compiled for. Numbers are wire constants.
type Arch uint8

// Architectures.
const (
	AMD64 Arch = 1
	ARM64 Arch = 2
)

// Arches lists every architecture, in wire order.
var Arches = []Arch{AMD64, ARM64}

// String returns GOARCH's name for a.
func (a Arch) String() string {
	switch a {
	case AMD64:
		return "amd64"
	case ARM64:
		return "arm64"
	}
	return "unknown-arch"
}

// ParseArch is the inverse of [Arch.String].
func ParseArch(s string) (Arch, bool) {
	for _, a := range Arches {
		if a.String() == s {
			return a, true
		}
	}
	return 0, false
}

// Audit returns the AUDIT_ARCH value that seccomp_data.arch carries (linux/audit.h).
func (a Arch) Audit() uint32 {
	switch a {
	case AMD64:
		return 0xC000003E
	case ARM64:
		return 0xC00000B7
	}
	return 0
}

// X32Bit marks system calls of the x32 ABI, which share AUDIT_ARCH_X86_64 (asm/unistd.h, __X32_SYSCALL_BIT).
const X32Bit = 0x40000000

// Sysno is a system call number on one architecture.
type Sysno = uint32

// Errno is an error number; the values used here are the same on both architectures (asm-generic/errno.h).
type Errno uint16

// Landlock filesystem access rights (linux/landlock.h), with the ABI that introduced each after the first.
const (
	FSExecute     uint64 = 1 << 0
	FSWriteFile   uint64 = 1 << 1
	FSReadFile    uint64 = 1 << 2
	FSReadDir     uint64 = 1 << 3
	FSRemoveDir   uint64 = 1 << 4
	FSRemoveFile  uint64 = 1 << 5
	FSMakeChar    uint64 = 1 << 6
	FSMakeDir     uint64 = 1 << 7
	FSMakeReg     uint64 = 1 << 8
	FSMakeSock    uint64 = 1 << 9
	FSMakeFifo    uint64 = 1 << 10
	FSMakeBlock   uint64 = 1 << 11
	FSMakeSym     uint64 = 1 << 12
	FSRefer       uint64 = 1 << 13 // ABI 2
	FSTruncate    uint64 = 1 << 14 // ABI 3
	FSIoctlDev    uint64 = 1 << 15 // ABI 5
	FSResolveUnix uint64 = 1 << 16 // ABI 9

	NetBindTCP        uint64 = 1 << 0 // ABI 4
	NetConnectTCP     uint64 = 1 << 1 // ABI 4
	NetBindUDP        uint64 = 1 << 2 // ABI 10
	NetConnectSendUDP uint64 = 1 << 3 // ABI 10

	ScopeAbstractUnix uint64 = 1 << 0 // ABI 6
	ScopeSignal       uint64 = 1 << 1 // ABI 6
)

// Masks of filesystem rights.
const (
	FSRead     = FSExecute | FSReadFile | FSReadDir
	FSFileMask = FSExecute | FSWriteFile | FSReadFile | FSTruncate | FSIoctlDev | FSResolveUnix // what a rule on a non-directory may carry
)
