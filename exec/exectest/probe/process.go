package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var processCommands = []command{
	{"fork-many", "N", 1, forkMany},
	{"fork-wait", "N", 1, forkWait},
	{"fork-flood", "N", 1, forkFlood},
	{"threads", "N", 1, threads},
	{"sleep", "SECONDS", 1, func(args []string) outcome {
		time.Sleep(time.Duration(number(args[0])) * time.Second)
		return succeeded
	}},
	{"daemon", "FILE SECONDS [subreaper]", 2, daemon},
	{"daemon-middle", "FILE SECONDS", 2, func(args []string) outcome {
		_, err := spawn(&syscall.SysProcAttr{Setpgid: true}, "heartbeat", args[0], args[1])
		return result(err)
	}},
	{"heartbeat", "FILE SECONDS", 2, heartbeat},
	{"stop-self", "FILE", 1, func(args []string) outcome {
		if err := os.WriteFile(args[0], []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			return failedAt("write", err)
		}
		return result(unix.Kill(os.Getpid(), unix.SIGSTOP))
	}},
}

// spawn starts this program again with plain fork and exec.
func spawn(attr *syscall.SysProcAttr, args ...string) (int, error) {
	return syscall.ForkExec(os.Args[0], append([]string{os.Args[0]}, args...), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: attr,
	})
}

// forkMany tells how many of N children may live at the same time.
func forkMany(args []string) outcome {
	var alive []int
	refused := map[string]int{}
	for range number(args[0]) {
		pid, err := spawn(nil, "sleep", "60")
		if err != nil {
			refused[errnoText(err)]++
			continue
		}
		alive = append(alive, pid)
	}
	for _, pid := range alive {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	}
	return value("forked=%d refused=%v", len(alive), refused)
}

// forkWait forks one child after the other and waits for each.
func forkWait(args []string) outcome {
	for i := range number(args[0]) {
		if got := cloneOnce(0); got != succeeded {
			return outcome(fmt.Sprintf("%s (child %d)", got, i+1))
		}
	}
	return succeeded
}

// forkFlood leaves N children as zombies, then reaps them all, and says how many forks worked before and after: a
// count that zombies leak from would not recover.
func forkFlood(args []string) outcome {
	n := number(args[0])
	first := cloneZombies(n)
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil {
			break
		}
	}
	second := cloneZombies(n)
	return value("first=%d second=%d", first, second)
}

func cloneZombies(n int) (worked int) {
	for range n {
		if _, errno := forkExit(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0); errno == 0 {
			worked++
		}
	}
	return worked
}

// threads needs N threads at the same time: none passes the barrier before all are there.
func threads(args []string) outcome {
	n := number(args[0])
	var barrier, done sync.WaitGroup
	barrier.Add(n)
	done.Add(n)
	ids := make([]int, n)
	for i := range n {
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			ids[i] = unix.Gettid()
			barrier.Done()
			barrier.Wait()
		}()
	}
	done.Wait()
	distinct := map[int]bool{}
	for _, id := range ids {
		distinct[id] = true
	}
	return value("threads=%d", len(distinct))
}

// daemon leaves a process behind as daemons do: own session, parent gone, own group.
func daemon(args []string) outcome {
	if len(args) > 2 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return failedAt("subreaper", err)
		}
	}
	pid, err := spawn(&syscall.SysProcAttr{Setsid: true}, "daemon-middle", args[0], args[1])
	if err != nil {
		return failedAt("fork", err)
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		return failedAt("wait4", err)
	}
	for range 500 {
		if info, err := os.Stat(args[0]); err == nil && info.Size() > 0 {
			return succeeded
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "value no heartbeat"
}

// heartbeat writes its pid again and again, and ignores whatever asks it politely to end.
func heartbeat(args []string) outcome {
	signal.Ignore(unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT)
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return failedAt("open", err)
	}
	for end := time.Now().Add(time.Duration(number(args[1])) * time.Second); time.Now().Before(end); {
		fmt.Fprintln(f, os.Getpid())
		time.Sleep(20 * time.Millisecond)
	}
	return succeeded
}
