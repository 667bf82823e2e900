// The runtime would keep the control group's cpu.max open (Go 1.25); the executor has it off too.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command loop starts a command with the supervisor's loop around it and nothing else of a sandbox: getppid is notified
// and continued. It is what bench/notify/notify.c is the yardstick of.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

const call = "getppid"

func init() { runtime.LockOSThread() }

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "loop:", err)
		code = 125
	}
	os.Exit(code)
}

func run(argv []string) (int, error) {
	if len(argv) == 0 {
		return 0, errors.New("usage: loop PROGRAM ARGUMENTS")
	}
	child, err := supervisetest.Start(argv, os.Environ(), call)
	if err != nil {
		return 0, err
	}
	loop, err := supervise.NewLoop(kernel.Listener{FD: child.Listener}, child.PIDFD, func() error { return nil })
	if err != nil {
		return 0, err
	}
	arch, _ := abi.ParseArch(runtime.GOARCH)
	nr, _ := abi.SyscallNumber(arch, call)
	d, err := supervise.NewDispatcher(arch, []supervise.Handler{continues{nr}}, func(abi.Sysno) bool { return true }, silent{})
	if err != nil {
		return 0, err
	}
	if err := loop.Run(d); err != nil {
		return 0, err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(child.PID, &status, 0, nil); err != nil {
		return 0, err
	}
	return status.ExitStatus(), nil
}

// continues is the cheapest handler.
type continues struct{ nr abi.Sysno }

func (continues) Name() string            { return "continues" }
func (c continues) Syscalls() []abi.Sysno { return []abi.Sysno{c.nr} }
func (continues) Handle(*supervise.Call) supervise.Verdict {
	return supervise.Continue(supervise.DecidedOnRegisters)
}

type silent struct{}

func (silent) Record(supervise.Event) {}
