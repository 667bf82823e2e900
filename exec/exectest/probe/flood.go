package main

import (
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// floodCommands press the supervisor from many sides at once.
var floodCommands = []command{
	{"hammer", "THREADS CALL FILE READY STOP", 5, hammer},
	{"kill-askers", "N FILE", 2, killAskers},
	{"storm", "N FILE", 2, storm},
	{"open-together", "THREADS FILE MODE READY", 4, openTogether},
	{"fork-drift", "N wnohang|ignored|failing|double", 2, forkDrift},
	{"churn", "MILLISECONDS FILE", 2, churn},
	{"clone3-loop", "N", 1, func(args []string) outcome {
		answers := map[string]int{}
		for range number(args[0]) {
			answers[string(clone3Once(0))]++
		}
		return value("%v", answers)
	}},
}

// askers are calls that a policy may have notified, by name.
var askers = map[string]func(file string) error{
	"chmod": func(file string) error { return unix.Fchmodat(unix.AT_FDCWD, file, 0o600, 0) },
	"xattr": func(file string) error { return unix.Setxattr(file, "user.probe", []byte("x"), 0) },
	"clone": func(string) error {
		pid, errno := forkExit(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0)
		if errno != 0 {
			return errno
		}
		_, err := unix.Wait4(int(pid), nil, 0, nil)
		return err
	},
	"sigaction": func(string) error { return nilIfZero(sigchldInstaller()()) },
	// Of these, the file is an address.
	"connect": func(to string) error { return datagramTo(to, unix.Connect) },
	"sendto": func(to string) error {
		return datagramTo(to, func(fd int, to unix.Sockaddr) error { return unix.Sendto(fd, []byte("x"), 0, to) })
	},
	"bind": func(to string) error { return datagramTo(to, unix.Bind) },
}

func datagramTo(address string, use func(fd int, to unix.Sockaddr) error) error {
	domain, to := sockaddr(address)
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return use(fd, to)
}

// hammer has many threads make a call until the file STOP is there, or for 50 seconds should nobody be left to say so. It makes the file READY once all of them do, and
// prints the answers that there were.
func hammer(args []string) outcome {
	threads, ask, file := number(args[0]), askers[args[1]], args[2]
	if ask == nil {
		return outcome("value no call " + args[1])
	}
	runtime.GOMAXPROCS(threads + 1)
	var stop atomic.Bool
	var busy, done sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]bool{}
	busy.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread()
			seen := map[string]bool{string(result(ask(file))): true}
			busy.Done()
			for !stop.Load() {
				seen[string(result(ask(file)))] = true
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(answers, seen)
		})
	}
	busy.Wait()
	if err := os.WriteFile(args[3], []byte("ready"), 0o644); err != nil {
		return failedAt("write", err)
	}
	for end := time.Now().Add(50 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(args[4]); err == nil {
			break
		}
	}
	stop.Store(true)
	done.Wait()
	return value("%s", strings.Join(slices.Sorted(maps.Keys(answers)), ", "))
}

// openTogether has many threads open a file, which may make them wait. It makes the file READY when all of them are about to, and
// prints how their opens ended; until then all stays open.
func openTogether(args []string) outcome {
	threads := number(args[0])
	var begun, done sync.WaitGroup
	var mu sync.Mutex
	ends := map[string]int{}
	begun.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread()
			begun.Done()
			_, err := unix.Open(args[1], openFlags(args[2]), 0)
			mu.Lock()
			defer mu.Unlock()
			ends[string(result(err))]++
		})
	}
	begun.Wait()
	if err := os.WriteFile(args[3], []byte("ready"), 0o644); err != nil {
		return failedAt("write", err)
	}
	done.Wait()
	return value("%v", ends)
}

// awaitFile waits until a file is there.
func awaitFile(path string) {
	for range 50_000 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// killAskers starts processes that ask on several threads and kills them while they do.
func killAskers(args []string) outcome {
	for i := range number(args[0]) {
		ready := fmt.Sprintf("%s.ready%d", args[1], i)
		pid, err := spawn(nil, "hammer", "4", []string{"chmod", "sigaction"}[i%2], args[1], ready, "/nonexistent")
		if err != nil {
			return failedAt("fork", err)
		}
		awaitFile(ready)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			return failedAt("kill", err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status.Signal() != unix.SIGKILL {
			return value("child ended with %#x", status)
		}
		if err := askers["chmod"](args[1]); err != nil {
			return failedAt("chmod", err)
		}
	}
	return succeeded
}

// storm makes N forks and as many other notified calls while signals fall on the thread that makes them. Each fork must
// make one child, no more and no less.
func storm(args []string) outcome {
	runtime.GOMAXPROCS(4)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1)
	var stop atomic.Bool
	tid := unix.Gettid()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGUSR1)
		}
	}()
	n := number(args[0])
	failures := map[string]int{}
	for range n {
		if _, errno := forkExit(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0); errno != 0 {
			failures[errnoText(errno)]++
		}
		for _, call := range []string{"chmod", "sigaction"} {
			if err := askers[call](args[1]); err != nil {
				failures[call+" "+errnoText(err)]++
			}
		}
	}
	stop.Store(true)
	<-done
	children := 0
	for {
		switch _, err := unix.Wait4(-1, nil, 0, nil); err {
		case nil:
			children++
		case unix.EINTR:
		default:
			return value("children=%d of %d failures=%v", children, n, failures)
		}
	}
}

// forkDrift forks N times in a way that a count of forks and waits would lose track of. A refused fork is tried again as
// children end; it prints how many were refused for good.
func forkDrift(args []string) outcome {
	n, refused := number(args[0]), map[string]int{}
	if args[1] == "ignored" {
		signal.Ignore(unix.SIGCHLD)
	}
	for range n {
		errno := unix.EAGAIN
		for range 2000 {
			if args[1] == "double" {
				errno = forkTwice()
			} else {
				_, errno = forkExit(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0)
			}
			if errno != unix.EAGAIN {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if errno != 0 {
			refused[errnoText(errno)]++
		}
		switch args[1] {
		case "wnohang":
			for {
				pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
				if pid <= 0 || err != nil {
					break
				}
			}
		case "failing":
			_, _ = unix.Wait4(-1, nil, 0, nil)
			_, _ = unix.Wait4(-1, nil, 0, nil) // ECHILD
		case "double":
			_, _ = unix.Wait4(-1, nil, 0, nil)
		}
	}
	return value("refused=%v", refused)
}

// forkTwice makes a child that makes another and exits: the second is nobody's to wait for. See forkExit.
//
//go:nosplit
func forkTwice() syscall.Errno {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		for {
			syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
		}
	}
	return errno
}

// churn forks, maps, executes, makes threads and leaves orphans behind until its time is over.
func churn(args []string) outcome {
	rounds := 0
	for end := time.Now().Add(time.Duration(number(args[0])) * time.Millisecond); time.Now().Before(end) || rounds == 0; rounds++ {
		memory, err := unix.Mmap(-1, 0, 8<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return failedAt("mmap", err)
		}
		for i := 0; i < len(memory); i += 64 << 10 {
			memory[i] = 1
		}
		if err := unix.Munmap(memory); err != nil {
			return failedAt("munmap", err)
		}
		if pid, err := spawn(nil, "threads", "4"); err == nil {
			_, _ = unix.Wait4(pid, nil, 0, nil)
		} else if err != unix.EAGAIN {
			return failedAt("spawn", err)
		}
		for range 3 {
			if errno := forkTwice(); errno != 0 && errno != unix.EAGAIN {
				return failedAt("fork", errno)
			}
			_, _ = unix.Wait4(-1, nil, 0, nil)
		}
		for _, call := range []string{"chmod", "sigaction"} {
			if err := askers[call](args[1]); err != nil {
				return failedAt(call, err)
			}
		}
	}
	return value("rounds=%d", rounds)
}
