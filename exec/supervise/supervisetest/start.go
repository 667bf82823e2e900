package supervisetest

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// Start starts a command whose named calls are notified to the caller, under a Landlock domain that only keeps signals
// inside. It is the real start with a filter of the caller's making; every other call is allowed. The calling goroutine
// must be locked to its thread for as long as the command runs.
func Start(argv, env []string, notified ...string) (*stage.Child, error) {
	arch, ok := abi.ParseArch(runtime.GOARCH)
	if !ok {
		return nil, errors.New("no system call numbers of " + runtime.GOARCH)
	}
	program, err := Filter(arch, notified...)
	if err != nil {
		return nil, err
	}
	filter, err := kernel.FilterProgram(program)
	if err != nil {
		return nil, err
	}
	ruleset, err := kernel.NewRuleset(0, 0, abi.ScopeSignal)
	if err != nil {
		return nil, err
	}
	defer ruleset.Close()
	return stage.Start(&stage.Plan{
		Candidates: argv[:1], Argv: argv, Env: env, RulesetFD: ruleset.FD, Filter: filter,
		FilterFlags: kernel.SeccompFlagNewListener | kernel.SeccompFlagWaitKillable,
	})
}

// Filter is a seccomp program that notifies the named calls and allows all others.
func Filter(arch abi.Arch, notified ...string) ([]byte, error) {
	insns := []bpf.Insn{{Code: bpf.LdAbs, K: bpf.OffNr}}
	for _, name := range notified {
		nr, ok := abi.SyscallNumber(arch, name)
		if !ok {
			return nil, fmt.Errorf("%v has no call %s", arch, name)
		}
		insns = append(insns,
			bpf.Insn{Code: bpf.Jeq, JF: 1, K: nr},
			bpf.Insn{Code: bpf.Ret, K: uint32(bpf.RetUserNotif)})
	}
	return bpf.Encode(append(insns, bpf.Insn{Code: bpf.Ret, K: uint32(bpf.RetAllow)})), nil
}
