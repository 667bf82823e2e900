package main

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// costCommands repeat something N times and print the nanoseconds of one.
var costCommands = []command{
	// The cheapest system call that libc and the vDSO do not answer.
	{"getppid-loop", "N", 1, func(args []string) outcome {
		return cost(args[0], func() outcome {
			unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
			return succeeded
		})
	}},
	{"stat-loop", "N", 1, func(args []string) outcome {
		var st unix.Stat_t
		return cost(args[0], func() outcome { return result(unix.Fstatat(unix.AT_FDCWD, "/usr/bin/env", &st, 0)) })
	}},
	{"open-loop", "N", 1, func(args []string) outcome {
		return cost(args[0], func() outcome {
			fd, err := unix.Open("/usr/bin/env", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return result(err)
			}
			return result(unix.Close(fd))
		})
	}},
	// One listing of a directory, from its start to its end, with the buffer of a C library.
	{"list-loop", "N PATH", 2, func(args []string) outcome {
		fd, err := unix.Open(args[1], unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return failedAt("open", err)
		}
		buf := make([]byte, 32<<10)
		return cost(args[0], func() outcome {
			if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
				return result(err)
			}
			for {
				if n, err := unix.Getdents(fd, buf); err != nil || n == 0 {
					return result(err)
				}
			}
		})
	}},
	// Streams are reset, so that ports do not run out.
	{"connect-loop", "N ADDRESS NONBLOCK", 3, func(args []string) outcome {
		domain, to := sockaddr(args[1])
		kind := unix.SOCK_STREAM | unix.SOCK_CLOEXEC
		if args[2] == "1" {
			kind |= unix.SOCK_NONBLOCK
		}
		return cost(args[0], func() outcome {
			fd, err := unix.Socket(domain, kind, 0)
			if err != nil {
				return failedAt("socket", err)
			}
			defer unix.Close(fd)
			if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				return failedAt("linger", err)
			}
			if err := unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
				return result(err)
			}
			return succeeded
		})
	}},
	{"datagram-loop", "N ADDRESS", 2, func(args []string) outcome {
		domain, to := sockaddr(args[1])
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM, 0)
		if err != nil {
			return failedAt("socket", err)
		}
		data := make([]byte, 64)
		return cost(args[0], func() outcome { return result(unix.Sendto(fd, data, 0, to)) })
	}},
	{"clone-loop", "N", 1, func(args []string) outcome {
		return cost(args[0], func() outcome { return cloneOnce(0) })
	}},
	{"chmod-loop", "N FILE", 2, func(args []string) outcome {
		return cost(args[0], func() outcome { return result(unix.Fchmodat(unix.AT_FDCWD, args[1], 0o600, 0)) })
	}},
	{"sigaction-loop", "N", 1, func(args []string) outcome {
		install := sigchldInstaller()
		return cost(args[0], func() outcome { return result(nilIfZero(install())) })
	}},
	{"listen-loop", "N PORT", 2, func(args []string) outcome {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return failedAt("socket", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return failedAt("reuse", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: number(args[1])}); err != nil {
			return failedAt("bind", err)
		}
		return cost(args[0], func() outcome { return result(unix.Listen(fd, 1)) })
	}},
	{"latency", "THREADS N getppid|sigaction", 3, latency},
}

// sigchldInstaller returns a function that installs the handler of SIGCHLD that there is, without SA_RESTART.
func sigchldInstaller() func() unix.Errno {
	const sigactionBytes, flagsOffset, restart, maskBytes = 32, 8, 0x10000000, 8
	action := make([]byte, sigactionBytes)
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), 0, address(action), maskBytes, 0, 0)
	flags := binary.NativeEndian.Uint64(action[flagsOffset:]) &^ restart
	return func() unix.Errno {
		binary.NativeEndian.PutUint64(action[flagsOffset:], flags)
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), address(action), 0, maskBytes, 0, 0)
		return errno
	}
}

// latency has threads make a call at the same time, N times each, and prints the median, the 99th percentile and the
// longest of all, in nanoseconds.
func latency(args []string) outcome {
	threads, n := number(args[0]), number(args[1])
	runtime.GOMAXPROCS(threads + 1) // each thread may wait in the kernel without keeping another from running
	all := make([]int64, threads*n)
	var ready, done sync.WaitGroup
	ready.Add(threads)
	for t := range threads {
		done.Go(func() {
			runtime.LockOSThread()
			once := func() unix.Errno {
				unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
				return 0
			}
			if args[2] == "sigaction" {
				once = sigchldInstaller()
			}
			ready.Done()
			ready.Wait()
			for i := range n {
				start := time.Now()
				once()
				all[t*n+i] = time.Since(start).Nanoseconds()
			}
		})
	}
	done.Wait()
	slices.Sort(all)
	return value("%d %d %d", all[len(all)/2], all[len(all)*99/100], all[len(all)-1])
}

func cost(times string, once func() outcome) outcome {
	n := number(times)
	start := time.Now()
	for range n {
		if got := once(); got != succeeded {
			return got
		}
	}
	return value("%.2f", float64(time.Since(start).Nanoseconds())/float64(n))
}
