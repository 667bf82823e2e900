package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests in kernel*_test.go start this test binary once more, under a filter of their own whose listener they own: the
// guest. What it asks for by its calls, and what it wants as answers, is here; the handlers are in the tests. It runs on
// the Go runtime, which sends its threads signals all the time, and makes the notified calls by hand.

// guestVariable names the guest in the environment of a started test binary.
const guestVariable = "SUPERVISE_GUEST"

func TestMain(m *testing.M) {
	if name := os.Getenv(guestVariable); name != "" {
		guests[name](os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var guests = map[string]func(args []string){
	"verdicts": guestVerdicts,
	"parallel": guestParallel,
	"once":     guestOnce,
	"storm":    guestStorm,
	"victims":  guestVictims,
	"memory":   guestMemory,
	"index":    guestIndex,
	"flood":    guestFlood,
	"leaver": func([]string) { // leaves while another thread waits for its answer
		go ask(0)
		must(0, 0, 1)
	},
	"abandoner": func([]string) {
		pid := spawn("ask", "1")
		must(0, 0, 2)
		check(syscall.Kill(pid, syscall.SIGKILL))
		wait(pid)
		must(0, 0, 3)
	},
	"crowd": guestCrowd,
	"waits": guestWaits,
	"asking": func(args []string) { // asks once on each of many threads
		for range number(args[1]) {
			go func() {
				runtime.LockOSThread()
				ask(number(args[0]))
			}()
		}
		select {}
	},
	"ask": func(args []string) { // asks on the main thread, or on another, until it is killed
		n := number(args[0])
		if len(args) > 1 {
			go func() {
				runtime.LockOSThread()
				for {
					ask(n)
				}
			}()
			select {}
		}
		for {
			ask(n)
		}
	},
}

// ask makes the call that the tests have notified, getpgid, with a number that no process has: who continues it makes it
// fail with ESRCH. The further arguments are what the handlers like.
func ask(args ...uintptr) (int, syscall.Errno) {
	var a [3]uintptr
	copy(a[:], args)
	a[0] += question
	r, _, errno := unix.Syscall(unix.SYS_GETPGID, a[0], a[1], a[2])
	return int(r), errno
}

const question = 0x40000000

// must ends the guest unless its question is answered as it should be.
func must(want int, wantErrno syscall.Errno, args ...uintptr) {
	if got, errno := ask(args...); errno != wantErrno || errno == 0 && got != want {
		guestFails("question %d: got %d, %v; want %d, %v", args, got, errno, want, wantErrno)
	}
}

func guestFails(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "guest: "+format+"\n", args...)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		guestFails("%v", err)
	}
}

func number(s string) uintptr {
	n, err := strconv.Atoi(s)
	check(err)
	return uintptr(n)
}

// spawn starts another guest inside.
func spawn(name string, args ...string) int {
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{name}, args...), &syscall.ProcAttr{
		Env: []string{guestVariable + "=" + name, "GORACE=atexit_sleep_ms=0"}, Files: []uintptr{0, 1, 2},
	})
	check(err)
	return pid
}

func wait(pid int) (status syscall.WaitStatus) {
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			check(err)
			return status
		}
	}
}

// guestVerdicts asks each question of the table that the test answers by.
func guestVerdicts([]string) {
	for i, q := range questions {
		got, errno := ask(uintptr(i))
		if errno != q.errno || errno == 0 && q.returns >= 0 && got != q.returns {
			guestFails("%s: got %d, %v; want %d, %v", q.name, got, errno, q.returns, q.errno)
		}
		if q.then != nil {
			q.then(got)
		}
	}
}

// guestParallel asks the same question on many threads, each of which stays on its own, then the further questions.
func guestParallel(args []string) {
	n := int(number(args[0]))
	var done sync.WaitGroup
	answers := make(chan syscall.Errno, n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			_, errno := ask(0)
			answers <- errno
		})
	}
	if len(args) > 1 {
		for range number(args[1]) { // so many are refused at once
			if errno := <-answers; errno != unix.EAGAIN {
				guestFails("parallel: %v, want EAGAIN", errno)
			}
		}
	}
	must(0, 0, 1)
	done.Wait()
	close(answers)
	for errno := range answers {
		must(0, 0, 2, uintptr(errno))
	}
	must(0, 0, 3)
}

// guestCrowd has another process ask question 1 on many threads. Once the supervisor has seen as many as args[1] says, it asks
// question 3 itself; then it kills the other process, and asks question 4.
func guestCrowd(args []string) {
	crowd := spawn("asking", "1", args[0])
	must(0, 0, 2)
	must(0, 0, 3)
	check(syscall.Kill(crowd, syscall.SIGKILL))
	wait(crowd)
	must(0, 0, 4)
}

// guestWaits asks what TestKernelWaitFD has wait.
func guestWaits([]string) {
	must(0, 0, 0)
	must(0, 0, 1)
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread()
		must(0, 0, 2)
	})
	for {
		if _, errno := ask(3); errno == 0 {
			break
		}
	}
	done.Wait()
	must(0, unix.EPERM, 4)
	must(7, 0, 5)
}

// guestOnce asks many numbered questions on several threads while signals fall on all of them.
func guestOnce(args []string) {
	threads, each := int(number(args[0])), int(number(args[1]))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1)
	var done, ready sync.WaitGroup
	ids := make([]int, threads)
	ready.Add(threads)
	for t := range threads {
		done.Go(func() {
			runtime.LockOSThread()
			ids[t] = unix.Gettid()
			ready.Done()
			for i := range each {
				n := t*each + i
				must(2*n+1, 0, uintptr(n))
			}
		})
	}
	ready.Wait()
	over := make(chan struct{})
	go func() {
		defer close(over)
		done.Wait()
	}()
	for i := 0; ; i++ {
		select {
		case <-over:
			return
		default:
			_ = unix.Tgkill(unix.Getpid(), ids[i%threads], unix.SIGUSR1)
		}
	}
}

// guestStorm starts processes that ask without end, on their main thread and on another, and kills them while they do.
func guestStorm(args []string) {
	for i := range int(number(args[0])) {
		pids := []int{spawn("ask", "1"), spawn("ask", "1", "thread")}
		for range i % 8 {
			must(0, 0, 2)
		}
		for _, pid := range pids {
			check(syscall.Kill(pid, syscall.SIGKILL))
			if status := wait(pid); status.Signal() != syscall.SIGKILL {
				guestFails("asking process: %v", status)
			}
		}
		must(0, 0, 2)
	}
}

// guestVictims has the supervisor kill one of two processes, by a call of the thread that is not its leader.
func guestVictims([]string) {
	bystander := spawn("ask", "2")
	victim := spawn("ask", "1", "thread")
	if status := wait(victim); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		guestFails("the victim ended with %v, want SIGKILL", status)
	}
	check(syscall.Kill(bystander, 0))
	check(syscall.Kill(bystander, syscall.SIGKILL))
	wait(bystander)
	must(0, 0, 0)
}

// guestFlood asks numbered questions on many threads at once.
func guestFlood(args []string) {
	threads, each := int(number(args[0])), int(number(args[1]))
	var done sync.WaitGroup
	for range threads {
		done.Go(func() {
			runtime.LockOSThread()
			for range each {
				must(0, 0, 0)
			}
		})
	}
	done.Wait()
}
