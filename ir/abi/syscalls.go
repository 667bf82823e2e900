package abi

import (
	"cmp"
	"slices"
	"sync"
)

//go:generate go run ./internal/gensyscalls

// Syscall is one system call of an architecture.
type Syscall struct {
	Nr   Sysno
	Name string // the kernel's name, lower case
}

// aliases maps names that other tools print to the kernel's.
var aliases = map[string]string{
	"fstatat": "newfstatat", // strace and libseccomp on arm64
	"umount":  "umount2",    // neither architecture has the one-argument call
}

// Syscalls returns the calls of an architecture in the order of their numbers. The slice is shared: do not modify.
func Syscalls(a Arch) []Syscall {
	switch a {
	case AMD64:
		return syscallsAMD64
	case ARM64:
		return syscallsARM64
	}
	return nil
}

// SyscallName returns the name of a number.
func SyscallName(a Arch, nr Sysno) (name string, ok bool) {
	table := Syscalls(a)
	i, ok := slices.BinarySearchFunc(table, nr, func(s Syscall, nr Sysno) int { return cmp.Compare(s.Nr, nr) })
	if !ok {
		return "", false
	}
	return table[i].Name, true
}

// CanonicalSyscall returns the kernel's name for a name that may be an alias.
func CanonicalSyscall(name string) string {
	if kernel, ok := aliases[name]; ok {
		return kernel
	}
	return name
}

// SyscallNumber returns the number of a name or alias. Many names exist on one architecture only (open on amd64).
func SyscallNumber(a Arch, name string) (nr Sysno, ok bool) {
	nr, ok = numbersByName()[a][CanonicalSyscall(name)]
	return nr, ok
}

// KnownSyscall tells whether any architecture has a call of this name.
func KnownSyscall(name string) bool {
	for _, a := range Arches {
		if _, ok := SyscallNumber(a, name); ok {
			return true
		}
	}
	return false
}

var numbersByName = sync.OnceValue(func() map[Arch]map[string]Sysno {
	index := make(map[Arch]map[string]Sysno, len(Arches))
	for _, a := range Arches {
		index[a] = make(map[string]Sysno, len(Syscalls(a)))
		for _, s := range Syscalls(a) {
			index[a][s.Name] = s.Nr
		}
	}
	return index
})
