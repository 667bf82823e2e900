package main

import (
	"bytes"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openCommands reach the same file by every call that opens one. MODE is r, w, rw, c (create), t (truncate), x
// (O_PATH) or d (directory).
var openCommands = []command{
	{"open", "PATH MODE", 2, func(args []string) outcome {
		if !haveLegacy {
			return "absent"
		}
		return result(legacyOpen(args[0], openFlags(args[1])))
	}},
	{"creat", "PATH", 1, func(args []string) outcome {
		if !haveLegacy {
			return "absent"
		}
		return result(legacyCreat(args[0]))
	}},
	{"openat", "PATH MODE", 2, func(args []string) outcome {
		_, err := unix.Openat(unix.AT_FDCWD, args[0], openFlags(args[1]), 0o644)
		return result(err)
	}},
	{"openat-dir", "DIR NAME MODE", 3, func(args []string) outcome {
		dir, err := unix.Open(args[0], unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return failedAt("dir", err)
		}
		_, err = unix.Openat(dir, args[1], openFlags(args[2]), 0o644)
		return result(err)
	}},
	{"openat2", "PATH MODE RESOLVE", 3, func(args []string) outcome {
		how := unix.OpenHow{Flags: uint64(openFlags(args[1])), Resolve: resolveFlags(args[2])}
		if how.Flags&unix.O_CREAT != 0 {
			how.Mode = 0o644
		}
		_, err := unix.Openat2(unix.AT_FDCWD, args[0], &how)
		return result(err)
	}},
	// A descriptor that names a file without a right to it must not be upgraded through /proc.
	{"reopen", "PATH MODE", 2, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return failedAt("O_PATH", err)
		}
		_, err = unix.Open("/proc/self/fd/"+itoa(fd), openFlags(args[1]), 0)
		return result(err)
	}},
	// The second word of a file, which is opened relative to a directory: by openat, or with RESOLVE by openat2.
	{"second-word", "DIR NAME [RESOLVE]", 2, func(args []string) outcome {
		dir, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return failedAt("dir", err)
		}
		var fd int
		if len(args) > 2 {
			fd, err = unix.Openat2(dir, args[1], &unix.OpenHow{Resolve: resolveFlags(args[2])})
		} else {
			fd, err = unix.Openat(dir, args[1], unix.O_RDONLY, 0)
		}
		if err != nil {
			return failedAt("open", err)
		}
		return secondWord(fd)
	}},
	{"count-lines", "DIR NAME RESOLVE", 3, func(args []string) outcome {
		dir, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return failedAt("dir", err)
		}
		fd, err := unix.Openat2(dir, args[1], &unix.OpenHow{Resolve: resolveFlags(args[2])})
		if err != nil {
			return failedAt("open", err)
		}
		b, err := io.ReadAll(os.NewFile(uintptr(fd), args[1]))
		if err != nil {
			return failedAt("read", err)
		}
		return value("lines=%d", bytes.Count(b, []byte("\n")))
	}},
	// The second word of a file that was only named at first.
	{"second-word-reopened", "PATH", 1, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return failedAt("O_PATH", err)
		}
		if fd, err = unix.Open("/proc/self/fd/"+itoa(fd), unix.O_RDONLY, 0); err != nil {
			return failedAt("open", err)
		}
		return secondWord(fd)
	}},
	{"readlink", "PATH", 1, func(args []string) outcome {
		b := make([]byte, 4096)
		n, err := unix.Readlink(args[0], b)
		if err != nil {
			return result(err)
		}
		return value("%s", b[:n])
	}},
	{"open-many", "PATH N", 2, func(args []string) outcome {
		opened := 0
		for range number(args[1]) {
			if _, err := unix.Open(args[0], unix.O_RDONLY, 0); err != nil {
				return value("opened=%d then %s", opened, errnoText(err))
			}
			opened++
		}
		return value("opened=%d", opened)
	}},
	{"ftruncate", "PATH", 1, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_RDWR, 0)
		if err != nil {
			return failedAt("open", err)
		}
		return result(unix.Ftruncate(fd, 0))
	}},
	{"link-empty", "PATH NEW", 2, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return failedAt("O_PATH", err)
		}
		return result(unix.Linkat(fd, "", unix.AT_FDCWD, args[1], unix.AT_EMPTY_PATH))
	}},
	{"chmod-opath", "PATH", 1, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return failedAt("O_PATH", err)
		}
		return result(unix.Fchmodat(fd, "", 0o600, unix.AT_EMPTY_PATH))
	}},
	{"mmap-shared-write", "PATH", 1, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_RDWR, 0)
		if err != nil {
			return failedAt("open", err)
		}
		_, err = unix.Mmap(fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return result(err)
	}},
}

func secondWord(fd int) outcome {
	b := make([]byte, 256)
	n, err := unix.Read(fd, b)
	words := strings.Fields(string(b[:max(n, 0)]))
	if err != nil || len(words) < 2 {
		return failedAt("read", err)
	}
	return value("%s", words[1])
}

func openFlags(mode string) int {
	flags := map[string]int{
		"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR, "c": unix.O_WRONLY | unix.O_CREAT,
		"t": unix.O_WRONLY | unix.O_TRUNC, "x": unix.O_PATH, "d": unix.O_RDONLY | unix.O_DIRECTORY,
	}
	return flags[mode] | unix.O_CLOEXEC
}

// resolveFlags reads names joined by commas: none, beneath, in_root, no_symlinks, no_magiclinks, no_xdev, cached.
func resolveFlags(names string) (flags uint64) {
	known := map[string]uint64{
		"beneath": unix.RESOLVE_BENEATH, "in_root": unix.RESOLVE_IN_ROOT, "no_symlinks": unix.RESOLVE_NO_SYMLINKS,
		"no_magiclinks": unix.RESOLVE_NO_MAGICLINKS, "no_xdev": unix.RESOLVE_NO_XDEV, "cached": 0x20,
	}
	for name := range strings.SplitSeq(names, ",") {
		flags |= known[name]
	}
	return flags
}
