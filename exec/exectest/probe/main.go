// The runtime would keep the control group's cpu.max open and re-read it, which would show in the list of open
// descriptors and need a grant (Go 1.25, "Container-aware GOMAXPROCS").
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command probe makes one attempt and says how it ended, so that tests can see a policy from inside.
//
// In: a sub-command and its arguments. Out: one line on standard output, "ok", "errno EPERM", "errno EPERM (step)" or
// "value …", and exit code 0; 2 when it was called wrongly. It makes attempts as they are given and hides nothing: the
// same attempt outside a sandbox is a test's positive control. It is static and opens no file that it was not asked
// to open, so that it runs under any policy that grants it execution.
//
// It must never be shipped, and never clean up after an attempt in a way that could hide that the attempt worked.
//
// Read next: call.go (any system call by name), then one file per family. To add an attempt: write a function that
// takes the arguments and returns an outcome, and name it in its family's table.
package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// command is one kind of attempt.
type command struct {
	name  string
	args  string // for the usage line
	least int    // arguments that it needs
	run   func(args []string) outcome
}

// outcome is the line that a test reads.
type outcome string

var families = [][]command{
	callCommands, abiCommands, namespaceCommands, processCommands, foreignCommands, openCommands, raceCommands, portCommands,
	execCommands, handleCommands, socketCommands, sendCommands, connectRaceCommands, unixCommands, ringCommands, stateCommands, terminalCommands,
	dirCommands, costCommands, burnCommands, chanceCommands, clockCommands, floodCommands, memoryCommands, netlinkCommands,
	coveredCommands,
}

func main() {
	// Attributes such as scheduling and file system ids are per thread.
	runtime.LockOSThread()
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) == 0 {
		return usage("which attempt?")
	}
	// Under a filter that allows everything, which the kernel never runs: the price of having one at all.
	if args[0] == "filtered" && len(args) > 1 {
		if got := allowAll(); got != succeeded {
			fmt.Println(got)
			return 0
		}
		args = args[1:]
	}
	if args[0] == "after" && len(args) > 2 {
		awaitFile(args[1])
		args = args[2:]
	}
	// Under a filter of its own that answers the calls which a policy may have notified.
	if args[0] == "own-filter" && len(args) > 2 {
		if got := ownFilter(args[1]); got != succeeded {
			fmt.Println(got)
			return 0
		}
		args = args[2:]
	}
	all := slices.Concat(families...)
	i := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		return usage("unknown attempt " + args[0])
	}
	if len(args)-1 < all[i].least {
		return usage("usage: probe " + all[i].name + " " + all[i].args)
	}
	fmt.Println(all[i].run(args[1:]))
	return 0
}

func usage(problem string) int {
	fmt.Fprintln(os.Stderr, "probe:", problem)
	if !strings.HasPrefix(problem, "usage") {
		for _, c := range slices.Concat(families...) {
			fmt.Fprintf(os.Stderr, "  %s %s\n", c.name, c.args)
		}
	}
	return 2
}
