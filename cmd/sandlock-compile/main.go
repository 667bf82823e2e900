// Command sandlock-compile turns policies into sealed artifacts, and shows what they mean.
//
//	sandlock-compile policy.cue -o p.sbx    compile (the default command)
//	sandlock-compile vet policy.cue         report mistakes only
//	sandlock-compile dump p.sbx             print what an artifact says
//	sandlock-compile golden --check         compare golden/ with policies/
//	sandlock-compile explain p.sbx open /etc/shadow
//
// Results go to standard output, messages to standard error. The exit code is 0; 1 when something failed that is not
// the policy (files, a stale golden, a failed test, no acceptable signature, a difference); 2 when the policy has
// mistakes; 64 when the command line has; 70 when sandlock-compile itself does.
package main

import (
	"os"
	"runtime/debug"
)

// A compilation is over before a collection would pay: without one it takes a third less time. The limit keeps a
// hostile policy from using all memory.
func init() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(512 << 20)
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
