// Package query answers "may this happen, and which rule says so" for a sealed program.
//
// In: a section of the program and one event (a system call with its register arguments, …). Out: a decision: the
// outcome, the reason, and the place in the policy that asked for it. It is the one evaluator of the project: the
// executor's handlers, `explain`, `test` and the proofs of the compiled filters all ask here, so that what is
// explained and what is enforced cannot drift apart. A second place that decides policy is a bug.
//
// It is pure: it reads no files, makes no system calls, keeps no state, and trusts that [ir.Program.Validate] has
// accepted the program. It must never guess: what a program does not settle is denied.
//
// Read next: syscall.go (the decision table of the seccomp filter), network.go (destinations), http.go (requests),
// http_path.go (what a request's path may mean), view.go (what mounts close), event.go (events as tests and explanations ask about them).
package query

import "errors"

// ErrNoCall is wrapped by the error about a system call that an architecture does not have.
var ErrNoCall = errors.New("no such system call")
