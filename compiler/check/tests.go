package check

import (
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func checkTests(c *checker) {
	for _, it := range c.Tests.Items {
		checkCase(c, &it.V.Case, it.Origin)
	}
	repeated(c.Tests, func(t policy.Test) string { return t.Name.V }, func(again, first policy.Val[policy.Test]) {
		c.add(diag.At(again.Origin, "duplicate", "another test is called %q", again.V.Name.V).AsWarning().WithNote(first.Origin.Place, "first at"))
	})
}

func checkCase(c *checker, t *policy.TestCase, o policy.Origin) {
	n := 0
	for _, set := range []bool{t.Open.Set, t.Connect.Set, t.Bind.Set, t.HTTP.Set, t.Syscall.Set} {
		if set {
			n++
		}
	}
	if n != 1 {
		c.errorf(o, "test-case", "%d events, a test is about one of open, connect, bind, http and syscall", n)
	}
	if t.Connect.Set {
		c.grammar(t.Connect, func(s string) error { _, err := policy.ParseConnect(s); return err })
	}
	if t.Bind.Set {
		c.grammar(t.Bind, func(s string) error { _, err := policy.ParseBindEndpoint(s); return err })
	}
	if t.Syscall.Set && !abi.KnownSyscall(t.Syscall.V) {
		c.unknown(t.Syscall.Origin, "syscall", "system call", t.Syscall.V, syscallNames())
	}
}

func (c *checker) grammar(v policy.Val[string], parse func(string) error) {
	if err := parse(v.V); err != nil {
		c.errorf(v.Origin, "endpoint", "%v", err)
	}
}
