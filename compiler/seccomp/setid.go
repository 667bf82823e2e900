package seccomp

import (
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Where a policy lets files be created, none may be born setuid or setgid: whoever runs such a file outside acts with
// the rights of the sandbox's user. Changing a mode later is a metadata call, which the supervisor looks at.
const (
	oCreat     = 0o100
	oTmpfile   = 0o20000000 // __O_TMPFILE, without the O_DIRECTORY that O_TMPFILE adds
	setIDs     = 0o6000
	reasonSets = "default deny: creating setuid files (group file_metadata)"
)

// bits is the condition that a 32-bit argument has one of some bits.
func bits(arg uint8, mask uint64) ir.Cond {
	return ir.Cond{Arg: arg, Op: ir.OpSet, Mask: low, Value: mask}
}

// creates gates a call whose mode counts if its flags create a file.
func creates(flags, mode uint8) func(*builder) ir.SyscallEntry {
	return func(b *builder) ir.SyscallEntry { return b.bornPlain(bits(flags, oCreat|oTmpfile), bits(mode, setIDs)) }
}

// createsAlways gates a call whose mode always counts.
func createsAlways(mode uint8) func(*builder) ir.SyscallEntry {
	return func(b *builder) ir.SyscallEntry { return b.bornPlain(bits(mode, setIDs)) }
}

func (b *builder) bornPlain(conds ...ir.Cond) ir.SyscallEntry {
	e := ir.SyscallEntry{Action: ir.Allow}
	if b.guardsModes() {
		e.Clauses = []ir.Clause{when(b.deny(abi.EPERM), reasonSets, conds...)}
	}
	return e
}

// openat2 has its mode in memory, where a filter cannot look and a supervisor could be raced. Callers fall back to
// openat, as they do on kernels before 5.6.
func (b *builder) openat2() ir.SyscallEntry {
	if b.guardsModes() {
		return ir.SyscallEntry{Action: ir.Errno(abi.ENOSYS), Reason: "openat2 hides the mode of new files from the filter; callers fall back to openat"}
	}
	return ir.SyscallEntry{Action: ir.Allow}
}

func (b *builder) guardsModes() bool {
	_, lifted := b.allowed(groupFileMetadata)
	return b.req.WriteGrants && !lifted
}
