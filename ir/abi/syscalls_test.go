package abi_test

import (
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"

	"github.com/sandlock-go/sandlock/ir/abi"
)

func TestSyscallTablesAreSortedAndInvertible(t *testing.T) {
	for _, a := range abi.Arches {
		calls := abi.Syscalls(a)
		if len(calls) < 300 {
			t.Fatalf("%s: got %d system calls, want at least 300", a, len(calls))
		}
		for i, s := range calls {
			if i > 0 && s.Nr <= calls[i-1].Nr {
				t.Errorf("%s: %s (%d) follows number %d", a, s.Name, s.Nr, calls[i-1].Nr)
			}
			if name, ok := abi.SyscallName(a, s.Nr); !ok || name != s.Name {
				t.Errorf("%s: SyscallName(%d): got %q, %v, want %q", a, s.Nr, name, ok, s.Name)
			}
			if nr, ok := abi.SyscallNumber(a, s.Name); !ok || nr != s.Nr {
				t.Errorf("%s: SyscallNumber(%q): got %d, %v, want %d", a, s.Name, nr, ok, s.Nr)
			}
		}
	}
}

// The tables of go-seccomp-bpf are made from the kernel's sources by another program; where both know a name they
// must agree on its number.
func TestSyscallNumbersAgreeWithGoSeccompBPF(t *testing.T) {
	for _, tc := range []struct {
		arch  abi.Arch
		other *arch.Info
	}{
		{abi.AMD64, arch.X86_64},
		{abi.ARM64, arch.AARCH64},
	} {
		if got, want := tc.arch.Audit(), uint32(tc.other.ID); got != want {
			t.Errorf("%s: audit value: got %#x, want %#x", tc.arch, got, want)
		}
		both := 0
		for name, want := range tc.other.SyscallNames {
			got, ok := abi.SyscallNumber(tc.arch, name)
			if !ok {
				t.Logf("%s: %s (%d) is only in go-seccomp-bpf's table", tc.arch, name, want)
				continue
			}
			both++
			if got != uint32(want) {
				t.Errorf("%s: %s: got %d, go-seccomp-bpf has %d", tc.arch, name, got, want)
			}
		}
		if both < 300 {
			t.Errorf("%s: only %d names are in both tables, want at least 300", tc.arch, both)
		}
	}
}

func TestSyscallNumber(t *testing.T) {
	for _, tc := range []struct {
		arch abi.Arch
		name string
		want abi.Sysno
		ok   bool
	}{
		{abi.AMD64, "read", 0, true},
		{abi.AMD64, "open", 2, true},
		{abi.ARM64, "open", 0, false},
		{abi.AMD64, "newfstatat", 262, true},
		{abi.AMD64, "fstatat", 262, true},
		{abi.ARM64, "newfstatat", 79, true},
		{abi.ARM64, "fstatat", 79, true},
		{abi.ARM64, "umount", 39, true},
		{abi.ARM64, "arch_specific_syscall", 0, false},
		{abi.AMD64, "clone3", 435, true},
		{abi.ARM64, "clone3", 435, true},
		{abi.AMD64, "READ", 0, false},
		{abi.Arch(0), "read", 0, false},
	} {
		if got, ok := abi.SyscallNumber(tc.arch, tc.name); got != tc.want || ok != tc.ok {
			t.Errorf("SyscallNumber(%s, %q): got %d, %v, want %d, %v", tc.arch, tc.name, got, ok, tc.want, tc.ok)
		}
	}
	for name, want := range map[string]bool{"open": true, "openat": true, "fstatat": true, "opn": false, "": false} {
		if got := abi.KnownSyscall(name); got != want {
			t.Errorf("KnownSyscall(%q): got %v, want %v", name, got, want)
		}
	}
}
