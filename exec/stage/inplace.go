package stage

import (
	"runtime"
	"syscall"
)

// BecomeInPlace takes the same steps in this process and executes the command; it returns only on failure. Unlike in
// a clone child other threads of the runtime run along, but confinement is a thread's own and execve keeps only the
// calling thread, so what the command gets is what this thread has.
func BecomeInPlace(p *Plan) error {
	if len(p.Candidates) == 0 {
		return errNoCandidate
	}
	runtime.LockOSThread()
	c, keep, err := p.prepare()
	if err != nil {
		return err
	}
	c.inPlace = true
	c.report = 2 // nothing is reported: descriptors from 3 on are closed by close_range
	m := child(c)
	runtime.KeepAlive(keep)
	e := &StepError{Step: Step(m.kind), Err: syscall.Errno(m.value)}
	if int(m.which) < len(p.Candidates) {
		e.Path = p.Candidates[m.which]
	}
	return e
}
