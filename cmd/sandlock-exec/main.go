// Command sandlock-exec loads a sealed policy artifact, installs it and supervises a command.
//
//	sandlock-exec p.sbx -- cmd args…     run under a policy
//	sandlock-exec -- cmd args…           run under the built-in default policy
//	sandlock-exec check [p.sbx]          what this host offers, and what the artifact would miss
//	sandlock-exec ports                  the virtual ports of the sandboxes that run
//	sandlock-exec txn stages.json        several commands on one branch of a working directory, all or nothing
//	sandlock-exec branch                 changes of working directories that were kept: list, show, diff, commit, abort
//
// The exit code is the command's own; 128+N when signal N ended it; 124 when the time limit ran out; 125 when the
// sandbox could not be set up; 126 when the command cannot be executed; 127 when it is not found.
package main

import (
	"os"
	"runtime"
)

// The main goroutine stays on the main thread: it clones the command, and only that thread may read its memory.
func init() { runtime.LockOSThread() }

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
