package kernel

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Numbers of processes where a command is in a PID namespace of its own: the kernel tells a supervisor its own, and the
// command's arguments have the command's.

// OwnTID returns what a thread is called in its own PID namespace.
func (r Root) OwnTID(tid int) (int, error) {
	if r.Own() {
		return tid, nil
	}
	n, err := numbersOf(tid)
	if err != nil {
		return 0, err
	}
	return n.threads[len(n.threads)-1], nil
}

// OwnPID returns what a thread's process is called in its own PID namespace.
func (r Root) OwnPID(tid int) (int, error) {
	if r.Own() {
		return ThreadGroup(tid)
	}
	n, err := numbersOf(tid)
	if err != nil {
		return 0, err
	}
	return n.processes[len(n.processes)-1], nil
}

// maxLooks bounds how many processes and threads are looked at for one number.
const maxLooks = 1 << 13

// HostPID returns this process's number for the thread that a caller means by a number: ESRCH if there is none in the
// caller's PID namespace. By the time that it is used it can be another's, as any number.
func (r Root) HostPID(caller, number int) (tid int, err error) {
	if r.Own() {
		return number, nil
	}
	own, err := numbersOf(caller)
	if err != nil {
		return 0, err
	}
	depth := len(own.threads)
	switch {
	case depth == 1:
		return number, nil // no namespace of its own
	case number <= 0:
		return 0, unix.ESRCH
	case own.threads[depth-1] == number:
		return caller, nil
	}
	s := search{number: number, depth: depth, looks: maxLooks}
	if level, err := r.view.procfs(caller); err == nil && level == depth-1 {
		// Its /proc tells at once whether there is such a thread, and of which process.
		b, err := r.view.read("/proc/" + strconv.Itoa(number) + "/status")
		if err != nil {
			return 0, unix.ESRCH
		}
		if s.process, err = statusNumber(b, "Tgid:"); err != nil {
			return 0, unix.ESRCH
		}
	}
	if tid, ok := s.among(own.processes[0]); ok {
		return tid, nil
	}
	first, err := r.view.first(caller, depth)
	if err != nil {
		return 0, err
	}
	if tid, ok := s.beneath(first); ok {
		return tid, nil
	}
	return 0, unix.ESRCH
}

// first returns the first process of a caller's PID namespace, from which all others descend.
func (v *view) first(caller, depth int) (pid int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.init != 0 {
		return v.init, nil
	}
	for pid, looks := caller, 0; looks < maxLooks; looks++ {
		n, err := numbersOf(pid)
		if err != nil || len(n.processes) != depth {
			return 0, unix.ESRCH // above the namespace: its first process is no ancestor
		}
		if n.processes[depth-1] == 1 {
			v.init = n.processes[0]
			return v.init, nil
		}
		st, err := ReadStat(n.processes[0])
		if err != nil {
			return 0, unix.ESRCH
		}
		pid = st.Parent
	}
	return 0, unix.ESRCH
}

// search looks for a thread by its number in a PID namespace.
type search struct {
	number  int
	depth   int // of the namespace: how many numbers its processes have
	process int // number of its process there, 0 if it is not known
	looks   int // that are left
}

// beneath looks through a process and its descendants.
func (s *search) beneath(first int) (tid int, ok bool) {
	for left := []int{first}; len(left) > 0 && s.looks > 0; {
		pid := left[len(left)-1]
		if tid, ok := s.among(pid); ok {
			return tid, true
		}
		children, _ := Children(pid) // it may end meanwhile
		left = append(left[:len(left)-1], children...)
	}
	return 0, false
}

// among looks through the threads of a process.
func (s *search) among(pid int) (tid int, ok bool) {
	s.looks--
	n, err := numbersOf(pid)
	if err != nil || len(n.processes) != s.depth || s.process != 0 && n.processes[s.depth-1] != s.process {
		return 0, false
	}
	if n.threads[s.depth-1] == s.number {
		return pid, true
	}
	tasks, err := os.ReadDir(procPath(pid, "task"))
	if err != nil {
		return 0, false
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if s.looks--; s.looks < 0 {
			return 0, false
		}
		if n, err := numbersOf(tid); err == nil && len(n.threads) == s.depth && n.threads[s.depth-1] == s.number {
			return tid, true
		}
	}
	return 0, false
}
