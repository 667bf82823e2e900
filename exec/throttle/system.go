package throttle

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Kernel is the System that runs.
type Kernel struct {
	members func() ([]int, error)
	waited  func() time.Duration
	started time.Time
}

// NewKernel makes a System. members lists the executor's children that belong to the sandbox; waited returns the CPU time of
// those that the executor has waited for.
func NewKernel(members func() ([]int, error), waited func() time.Duration) *Kernel {
	return &Kernel{members, waited, time.Now()}
}

// Roots lists the executor's children that belong to the sandbox.
func (k *Kernel) Roots() ([]int, error) { return k.members() }

// Reaped returns the CPU time of those that the executor has waited for.
func (k *Kernel) Reaped() time.Duration { return k.waited() }

// Now returns a monotonic time.
func (k *Kernel) Now() time.Duration { return time.Since(k.started) }

// Sleep lets time pass.
func (*Kernel) Sleep(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // on this very thread; too short is as good
}

// Open returns a pidfd.
func (*Kernel) Open(pid int) (pidfd int, err error) { return unix.PidfdOpen(pid, 0) }

// Close closes it.
func (*Kernel) Close(pidfd int) { _ = unix.Close(pidfd) }

// Signal sends a signal to a process.
func (*Kernel) Signal(pidfd int, sig unix.Signal) error {
	return unix.PidfdSendSignal(pidfd, sig, nil, 0)
}

// The rest is as package kernel says.

func (*Kernel) Children(pid int) ([]int, error)        { return kernel.Children(pid) }
func (*Kernel) Stat(pid int) (kernel.Stat, error)      { return kernel.ReadStat(pid) }
func (*Kernel) CPUTime(pid int) (time.Duration, error) { return kernel.CPUTime(pid) }
func (*Kernel) Demand(pid int) float64                 { return kernel.Demand(pid) }
func (*Kernel) Halted(pid int) bool                    { return kernel.Halted(pid) }
func (*Kernel) Pending(pid int) uint64                 { return kernel.PendingSignals(pid) }
