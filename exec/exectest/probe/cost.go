package main

import (
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
	{"clone-loop", "N", 1, func(args []string) outcome {
		return cost(args[0], func() outcome { return cloneOnce(0) })
	}},
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
