package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// burnCommands use as much CPU time as they get for so many milliseconds, each in another way, and print how much that was
// and how long it took, both in milliseconds.
var burnCommands = []command{
	{"burn-loop", "MS", 1, burnLoop},
	{"burn-pair", "MS", 1, func(args []string) outcome { return burnIn(args[0], nil, 2) }},
	{"burn-session", "MS", 1, func(args []string) outcome { return burnIn(args[0], &syscall.SysProcAttr{Setsid: true}, 1) }},
	{"burn-without-leader", "MS", 1, func(args []string) outcome {
		go func() {
			fmt.Println(burnLoop(args))
			os.Exit(0)
		}()
		unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // this thread alone, which main has locked to the first one
		return succeeded
	}},
	{"burn-chain", "MS", 1, burnChain},
	{"burn-discarded", "MS", 1, func(args []string) outcome {
		signal.Ignore(unix.SIGCHLD) // the kernel reaps, and nobody learns what the children used
		return burnChain(args)
	}},
	{"burn-nice", "MS", 1, func(args []string) outcome {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 19); err != nil {
			return failedAt("setpriority", err)
		}
		return burnLoop(args)
	}},
	{"burn-continued", "MS", 1, func(args []string) outcome {
		pid, err := spawn(nil, "continue-everyone")
		if err != nil {
			return failedAt("fork", err)
		}
		defer unix.Wait4(pid, nil, 0, nil)
		defer unix.Kill(pid, unix.SIGKILL)
		return burnLoop(args)
	}},
	{"burn-timer", "MS", 1, func(args []string) outcome {
		// Ignored, the timer's signal would come once only; and a stop discards one that waits, and the timer with it.
		signal.Notify(make(chan os.Signal, 1), unix.SIGCONT)
		start, before := time.Now(), used(unix.RUSAGE_SELF)
		for end := start.Add(milliseconds(args[0])); time.Now().Before(end); burn(5 * time.Millisecond) {
			if err := continueByTimer(time.Millisecond); err != nil {
				return failedAt("timer_create", err)
			}
		}
		return burnt(used(unix.RUSAGE_SELF)-before, start)
	}},
	// The parts that the others consist of. They write to descriptor 3, in microseconds, what they used.
	{"burn-part", "MS", 1, func(args []string) outcome {
		burn(milliseconds(args[0]))
		return report()
	}},
	// Until it has used so much itself, however long that takes.
	{"burn-some", "MS", 1, func(args []string) outcome {
		for limit := milliseconds(args[0]); used(unix.RUSAGE_SELF) < limit; {
		}
		return report()
	}},
	{"continue-everyone", "", 0, func([]string) outcome {
		for self := os.Getpid(); ; {
			for pid := self - 3; pid <= self; pid++ {
				unix.Kill(pid, unix.SIGCONT)
			}
		}
	}},
}

func report() outcome {
	if _, err := fmt.Fprintln(os.NewFile(3, "report"), used(unix.RUSAGE_SELF).Microseconds()); err != nil {
		return result(err)
	}
	os.Exit(0) // the line on standard output is its parent's
	return succeeded
}

func milliseconds(text string) time.Duration { return time.Duration(number(text)) * time.Millisecond }

func used(who int) time.Duration {
	var usage unix.Rusage
	_ = unix.Getrusage(who, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// burn works until the time is over.
func burn(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

func burnt(cpu time.Duration, start time.Time) outcome {
	return value("%d %d", cpu.Milliseconds(), time.Since(start).Milliseconds())
}

func burnLoop(args []string) outcome {
	start, before := time.Now(), used(unix.RUSAGE_SELF)
	burn(milliseconds(args[0]))
	return burnt(used(unix.RUSAGE_SELF)-before, start)
}

// burnIn has n processes work at the same time.
func burnIn(ms string, attr *syscall.SysProcAttr, n int) outcome {
	start := time.Now()
	sum, err := reports(func(w *os.File) error {
		for range n {
			if err := spawnReporting(w, attr, "burn-part", ms); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return result(err)
	}
	return burnt(sum, start)
}

// burnChain has one short process after the other work.
func burnChain(args []string) outcome {
	start := time.Now()
	sum, err := reports(func(w *os.File) error {
		for time.Since(start) < milliseconds(args[0]) {
			if err := spawnReporting(w, nil, "burn-some", "5"); err != nil {
				return err
			}
			unix.Wait4(-1, nil, 0, nil) // where nobody waits for children: until they are gone
		}
		return nil
	})
	if err != nil {
		return result(err)
	}
	// Where it can be known, with what starting and ending the children took.
	return burnt(max(sum, used(unix.RUSAGE_CHILDREN)+used(unix.RUSAGE_SELF)), start)
}

// reports adds up what the processes that run starts write, one number of microseconds a line.
func reports(run func(w *os.File) error) (sum time.Duration, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	total := make(chan time.Duration)
	go func() {
		var sum time.Duration
		for lines := bufio.NewScanner(r); lines.Scan(); {
			sum += time.Duration(number(strings.TrimSpace(lines.Text()))) * time.Microsecond
		}
		total <- sum
	}()
	err = run(w)
	w.Close()
	return <-total, err
}

func spawnReporting(w *os.File, attr *syscall.SysProcAttr, args ...string) error {
	_, err := syscall.ForkExec(os.Args[0], append([]string{os.Args[0]}, args...), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 2, 2, w.Fd()}, Sys: attr,
	})
	return err
}

// continueByTimer has the kernel send this process SIGCONT again and again, also while it is stopped.
func continueByTimer(interval time.Duration) error {
	event := struct {
		value  uint64
		signo  int32
		notify int32
		rest   [48]byte
	}{signo: int32(unix.SIGCONT)} // notify 0: SIGEV_SIGNAL
	var id int32
	if _, _, e := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id))); e != 0 {
		return e
	}
	spec := unix.ItimerSpec{Interval: unix.NsecToTimespec(int64(interval)), Value: unix.NsecToTimespec(int64(interval))}
	if _, _, e := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(id), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}
