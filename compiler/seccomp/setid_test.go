package seccomp_test

import (
	"testing"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func TestNoFileIsBornSetuid(t *testing.T) {
	const (
		wronlyCreat = 0o101
		tmpfile     = 0o20200001
	)
	write := seccomp.Request{WriteGrants: true, ProcessLimit: true}
	for _, mode := range []uint64{0o4755, 0o2755, 0o6000, 0o4755 | dirty} {
		expect(t, write, sys("openat", 0, 0, wronlyCreat, mode), eperm)
		expect(t, write, sys("openat", 0, 0, tmpfile|dirty, mode), eperm)
		expect(t, write, sys("openat", 0, 0, 0, mode), allow) // without O_CREAT the register holds anything
		expect(t, write, sys("mknodat", 0, 0, mode), eperm)
	}
	expect(t, write, sys("openat", 0, 0, wronlyCreat, 0o1755), allow) // sticky gives nobody anything
	expect(t, write, sys("openat2"), ir.Errno(abi.ENOSYS))
	for _, req := range []seccomp.Request{{}, {WriteGrants: true, AllowGroups: []seccomp.Named{{Name: "file_metadata"}}}} {
		expect(t, req, sys("openat", 0, 0, wronlyCreat, 0o4755), allow)
		expect(t, req, sys("openat2"), allow)
	}
	inPlace := seccomp.Request{WriteGrants: true, NoSupervisor: true}
	expect(t, inPlace, sys("openat", 0, 0, wronlyCreat, 0o4755), eperm)
}
