package main

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memoryCommands ask for memory and say "ok" when they have it. Sizes are in megabytes.
var memoryCommands = []command{
	{"mem-map", "MB [private|noreserve|shared|zero|reserve|fixed|growsdown]", 1, memMap},
	{"mem-touch", "MB", 1, func(args []string) outcome {
		return hold(args[0], unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, 0)
	}},
	{"mem-sleep", "MB", 1, func(args []string) outcome {
		return hold(args[0], unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, time.Second)
	}},
	{"mem-protect", "MB", 1, memProtect},
	{"mem-brk", "MB", 1, memBrk},
	{"mem-remap", "MB", 1, memRemap},
	{"mem-readonly", "MB COUNT", 2, memReadOnly},
	{"mem-partial", "MB COUNT [zero]", 2, memPartial},
	{"mem-churn", "MB COUNT [shared]", 2, memChurn},
	{"mem-failing", "MB COUNT", 2, memFailing},
	{"mem-memfd", "MB COUNT keep|hide|unlock|close [SECONDS]", 3, memMemfd},
	{"mem-threads", "MB COUNT", 2, memThreads},
	{"mem-children", "MB COUNT", 2, memChildren},
	{"mem-copies", "MB COUNT SECONDS", 3, memCopies},
	{"mem-forks", "MB COUNT SECONDS", 3, memForks},
	{"mem-leaderless", "MB", 1, memLeaderless},
	{"mem-sysinfo", "", 0, memSysinfo},
}

func megabytes(text string) uintptr { return uintptr(number(text)) << 20 }

func mapMemory(addr, n uintptr, prot, flags, fd int) (uintptr, error) {
	p, _, e := unix.Syscall6(unix.SYS_MMAP, addr, n, uintptr(prot), uintptr(flags), uintptr(fd), 0)
	if e != 0 {
		return 0, e
	}
	return p, nil
}

// touch writes to each page of memory that the runtime does not know.
func touch(p, n uintptr) {
	for i := uintptr(0); i < n; i += 4096 {
		*(*byte)(unsafe.Add(unsafe.Pointer(nil), p+i)) = 1
	}
}

// hold maps, writes to every page, and keeps it for a while.
func hold(size string, prot, flags int, pause time.Duration) outcome {
	n := megabytes(size)
	p, err := mapMemory(0, n, prot, flags, -1)
	if err != nil {
		return result(err)
	}
	touch(p, n)
	time.Sleep(pause)
	return succeeded
}

func memMap(args []string) outcome {
	n := megabytes(args[0])
	prot, flags, fd := unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, -1
	kind := "private"
	if len(args) > 1 {
		kind = args[1]
	}
	switch kind {
	case "noreserve":
		flags |= unix.MAP_NORESERVE
	case "shared":
		flags = unix.MAP_SHARED | unix.MAP_ANON
	case "growsdown":
		flags |= unix.MAP_GROWSDOWN
	case "reserve":
		prot = unix.PROT_NONE
	case "zero":
		file, err := unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return failedAt("open", err)
		}
		flags, fd = unix.MAP_SHARED, file
	case "fixed": // over itself, which costs nothing the second time
		for range 8 {
			if _, err := mapMemory(1<<40, n, prot, flags|unix.MAP_FIXED, -1); err != nil {
				return result(err)
			}
		}
		return succeeded
	}
	_, err := mapMemory(0, n, prot, flags, fd)
	return result(err)
}

func memProtect(args []string) outcome {
	n := megabytes(args[0])
	p, err := mapMemory(0, n, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON, -1)
	if err != nil {
		return failedAt("mmap", err)
	}
	_, _, e := unix.Syscall(unix.SYS_MPROTECT, p, n, unix.PROT_READ|unix.PROT_WRITE)
	return errnoResult(e)
}

func errnoResult(e syscall.Errno) outcome {
	if e != 0 {
		return result(e)
	}
	return succeeded
}

// memBrk grows the heap in steps of a megabyte.
func memBrk(args []string) outcome {
	end, _, _ := unix.Syscall(unix.SYS_BRK, 0, 0, 0)
	for range number(args[0]) {
		got, _, _ := unix.Syscall(unix.SYS_BRK, end+1<<20, 0, 0)
		if got != end+1<<20 {
			return "value refused"
		}
		end = got
	}
	return succeeded
}

func memRemap(args []string) outcome {
	p, err := mapMemory(0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, -1)
	if err != nil {
		return failedAt("mmap", err)
	}
	_, _, e := unix.Syscall6(unix.SYS_MREMAP, p, 4096, megabytes(args[0]), unix.MREMAP_MAYMOVE, 0, 0)
	return errnoResult(e)
}

// memReadOnly fills memory and takes the right to write away, so that it no longer counts as data.
func memReadOnly(args []string) outcome {
	n := megabytes(args[0])
	for range number(args[1]) {
		p, err := mapMemory(0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, -1)
		if err != nil {
			return result(err)
		}
		touch(p, n)
		if _, _, e := unix.Syscall(unix.SYS_MPROTECT, p, n, unix.PROT_READ); e != 0 {
			return failedAt("mprotect", e)
		}
	}
	return succeeded
}

// memPartial fills shared memory and unmaps all of it but a page, which keeps the whole.
func memPartial(args []string) outcome {
	n := megabytes(args[0])
	flags, fd := unix.MAP_SHARED|unix.MAP_ANON, -1
	if len(args) > 2 {
		var err error
		if fd, err = unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return failedAt("open", err)
		}
		flags = unix.MAP_SHARED
	}
	for range number(args[1]) {
		p, err := mapMemory(0, n, unix.PROT_READ|unix.PROT_WRITE, flags, fd)
		if err != nil {
			return result(err)
		}
		touch(p, n)
		if _, _, e := unix.Syscall(unix.SYS_MUNMAP, p+4096, n-4096, 0); e != 0 {
			return failedAt("munmap", e)
		}
	}
	return succeeded
}

// memChurn maps, fills and unmaps: nothing may stay charged.
func memChurn(args []string) outcome {
	n := megabytes(args[0])
	kind := unix.MAP_PRIVATE
	if len(args) > 2 {
		kind = unix.MAP_SHARED
	}
	for range number(args[1]) {
		p, err := mapMemory(0, n, unix.PROT_READ|unix.PROT_WRITE, kind|unix.MAP_ANON, -1)
		if err != nil {
			return result(err)
		}
		touch(p, n)
		if _, _, e := unix.Syscall(unix.SYS_MUNMAP, p, n, 0); e != 0 {
			return failedAt("munmap", e)
		}
	}
	return succeeded
}

// memFailing asks in vain: neither may failed calls stay charged.
func memFailing(args []string) outcome {
	n := megabytes(args[0])
	for range number(args[1]) {
		if _, err := mapMemory(1, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED, -1); err == nil {
			return "value the call was to fail"
		}
	}
	_, err := mapMemory(0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, -1)
	return result(err)
}

// memMemfd writes files in memory, and keeps, hides or closes them, for so many seconds at the end.
func memMemfd(args []string) outcome {
	block := make([]byte, 1<<20)
	how := args[2]
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return failedAt("socketpair", err)
	}
	for range number(args[1]) {
		fd, err := unix.MemfdCreate("probe", 0)
		if err != nil {
			return failedAt("memfd_create", err)
		}
		if how == "unlock" {
			unix.Flock(fd, unix.LOCK_UN)
		}
		for range number(args[0]) {
			if _, err := unix.Write(fd, block); err != nil {
				return failedAt("write", err)
			}
		}
		if how == "hide" {
			if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
				return failedAt("sendmsg", err)
			}
		}
		if how == "hide" || how == "close" {
			unix.Close(fd)
		}
		if how == "unlock" { // until somebody looks
			for range 100 {
				if _, err := unix.Pwrite(fd, block, 0); err != nil {
					return failedAt("write", err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	if len(args) > 3 {
		time.Sleep(time.Duration(number(args[3])) * time.Second)
	}
	return succeeded
}

// memThreads has threads that ask for memory at the same moment.
func memThreads(args []string) outcome {
	n, count := megabytes(args[0]), number(args[1])
	var ready, done sync.WaitGroup
	ready.Add(count)
	done.Add(count)
	for range count {
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			ready.Done()
			ready.Wait()
			if p, err := mapMemory(0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, -1); err == nil {
				touch(p, n)
			}
		}()
	}
	done.Wait()
	return succeeded
}

// memChildren starts programs that ask for memory each, and tells how many were killed.
func memChildren(args []string) outcome {
	var pids []int
	for range number(args[1]) {
		pid, err := syscall.ForkExec(os.Args[0], []string{os.Args[0], "mem-sleep", args[0]}, &syscall.ProcAttr{Files: []uintptr{0, 2, 2}})
		if err != nil {
			return failedAt("fork", err)
		}
		pids = append(pids, pid)
	}
	return killedOf(pids)
}

// killedOf waits for children. The first that was killed decides, and the others need not go on.
func killedOf(pids []int) outcome {
	for range pids {
		var ws unix.WaitStatus
		unix.Wait4(-1, &ws, 0, nil)
		if ws.Signaled() && ws.Signal() == unix.SIGKILL {
			for _, pid := range pids {
				unix.Kill(pid, unix.SIGKILL)
			}
			return "value killed=some"
		}
	}
	return "value killed=none"
}

// memCopies fills memory and forks children that write to it, with no system call that tells.
func memCopies(args []string) outcome { return forkHolders(args, true) }

// memForks forks children that leave what they got alone.
func memForks(args []string) outcome { return forkHolders(args, false) }

func forkHolders(args []string, write bool) outcome {
	n := megabytes(args[0])
	p, err := mapMemory(0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, -1)
	if err != nil {
		return result(err)
	}
	touch(p, n)
	var pids []int
	for range number(args[1]) {
		size := n
		if !write {
			size = 0
		}
		pid, e := forkHolder(p, size, &unix.Timespec{Sec: int64(number(args[2]))})
		if e != 0 {
			return failedAt("fork", e)
		}
		pids = append(pids, pid)
	}
	return killedOf(pids)
}

// forkHolder forks a child that writes to memory and keeps it for a while. The child makes raw calls only.
//
//go:norace
//go:nosplit
func forkHolder(p, n uintptr, pause *unix.Timespec) (int, syscall.Errno) {
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		return int(pid), e
	}
	for i := uintptr(0); i < n; i += 4096 {
		*(*byte)(unsafe.Add(unsafe.Pointer(nil), p+i)) = 2
	}
	syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(pause)), 0, 0)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// memLeaderless asks for memory after the first thread has ended, whose files in /proc are empty from then on.
func memLeaderless(args []string) outcome {
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread()
		time.Sleep(100 * time.Millisecond)
		n, step := megabytes(args[0]), uintptr(1<<20)
		for got := uintptr(0); got < n; got += step {
			p, err := mapMemory(0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, -1)
			if err != nil {
				os.Stdout.WriteString(string(result(err)) + "\n")
				os.Exit(0)
			}
			touch(p, step)
		}
		os.Stdout.WriteString(string(succeeded) + "\n")
		os.Exit(0)
	}()
	syscall.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	return <-done
}

func memSysinfo([]string) outcome {
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return result(err)
	}
	total := uint64(s.Totalram) * uint64(s.Unit)
	if free := uint64(s.Freeram) * uint64(s.Unit); free > total {
		return value("free %d of %d", free, total)
	}
	return value("total=%d swap=%d", total, s.Totalswap)
}
