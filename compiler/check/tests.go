package check

import (
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func checkTests(c *checker) {
	for _, it := range c.Tests.Items {
		if call := it.V.Case.Syscall; call.Set && !abi.KnownSyscall(call.V) {
			c.unknown(call.Origin, "syscall", "system call", call.V, syscallNames())
		}
	}
	repeated(c.Tests, func(t policy.Test) string { return t.Name.V }, func(again, first policy.Val[policy.Test]) {
		c.add(diag.At(again.Origin, "duplicate", "another test is called %q", again.V.Name.V).AsWarning().WithNote(first.Origin.Place, "first at"))
	})
}
