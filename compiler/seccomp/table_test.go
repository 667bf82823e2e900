package seccomp_test

import (
	"testing"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/compiler/seccomp/seccomptest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func TestQuick(t *testing.T) {
	for _, a := range abi.Arches {
		table, err := seccomp.Table(a, seccomp.Request{ProcessLimit: true})
		if err != nil {
			t.Fatal(err)
		}
		prog, err := seccomp.Assemble(a, table, seccomp.Hot(a))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d entries, %d insns", a, len(table), len(prog)/8)
		seccomptest.Prove(t, a, table, prog)
	}
}
