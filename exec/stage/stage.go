// Package stage starts the command: it prepares everything in the parent and lets a raw clone child do nothing but
// raw system calls until its execve.
//
// In: a [Plan] (descriptors, programs, strings, numbers; no policy types). Out: a [Child] with the listener of its
// seccomp filter, or a [StepError] that names the step which failed. The package never retries, never skips a step
// and never allocates or takes a lock in the child.
//
// The child shares the parent's descriptor table until just before its execve. That is how the parent gets the
// seccomp listener without passing descriptors over a socket (sendmsg may itself be notified) and without
// pidfd_getfd(2). No thread of the executor ever enters the child's Landlock domain: a thread inside it could be
// traced from the sandbox.
//
// Read next: plan.go (what is prepared), child.go (the steps in order, each with its reason), inplace.go.
package stage
