package main

import (
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// coveredCommands try what is mounted over: what is told of it, and whether it can be moved from under its mount.
var coveredCommands = []command{
	{"stat", "PATH", 1, func(args []string) outcome {
		var st unix.Stat_t
		if err := unix.Stat(args[0], &st); err != nil {
			return result(err)
		}
		return value("mode=%o size=%d uid=%d nlink=%d", st.Mode, st.Size, st.Uid, st.Nlink)
	}},
	{"readlink", "PATH", 1, func(args []string) outcome {
		text, err := os.Readlink(args[0])
		if err != nil {
			return result(err)
		}
		return value("%s", text)
	}},
	{"watch-file", "PATH", 1, func(args []string) outcome {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return failedAt("init", err)
		}
		_, err = unix.InotifyAddWatch(fd, args[0], unix.IN_ALL_EVENTS)
		return result(err)
	}},
	{"fallocate", "PATH", 1, func(args []string) outcome {
		fd, err := unix.Open(args[0], unix.O_WRONLY, 0)
		if err != nil {
			return failedAt("open", err)
		}
		return result(unix.Fallocate(fd, 0, 0, 4096))
	}},
	{"fchdir-open", "DIR NAME MODE", 3, func(args []string) outcome {
		dir, err := unix.Open(args[0], unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return failedAt("dir", err)
		}
		if err := unix.Fchdir(dir); err != nil {
			return failedAt("fchdir", err)
		}
		_, err = unix.Open(args[1], openFlags(args[2]), 0o644)
		return result(err)
	}},
	{"rename-race", "DIR N", 2, renameRace},
}

// renameRace opens DIR/d/secret, and every name that it could get, N times while another thread renames, exchanges, links and
// replaces it and the directory above. A file whose first byte is "S" is a leak; so is a move that worked.
func renameRace(args []string) outcome {
	dir, n := args[0], number(args[1])
	if err := os.Mkdir(dir+"/x", 0o755); err != nil {
		return failedAt("mkdir", err)
	}
	if err := os.WriteFile(dir+"/x/secret", []byte("o"), 0o644); err != nil {
		return failedAt("write", err)
	}
	var stop atomic.Bool
	var rounds, moved atomic.Int64
	go func() {
		runtime.LockOSThread()
		try := func(err error) {
			if err == nil {
				moved.Add(1)
			}
		}
		const exchange = unix.RENAME_EXCHANGE
		for !stop.Load() {
			try(unix.Rename(dir+"/d", dir+"/e"))
			try(unix.Rename(dir+"/e", dir+"/d"))
			try(unix.Renameat2(unix.AT_FDCWD, dir+"/d", unix.AT_FDCWD, dir+"/x", exchange))
			try(unix.Renameat2(unix.AT_FDCWD, dir+"/d/secret", unix.AT_FDCWD, dir+"/x/secret", exchange))
			try(unix.Rename(dir+"/d/secret", dir+"/d/other"))
			try(unix.Link(dir+"/d/secret", dir+"/link"))
			try(unix.Link(dir+"/d/secret", dir+"/d/link"))
			// What may be moved is, all the time, under the walks of the other thread.
			unix.Rename(dir+"/x", dir+"/y")
			unix.Rename(dir+"/y", dir+"/x")
			rounds.Add(1)
		}
	}()
	names := []string{"/d/secret", "/e/secret", "/x/secret", "/y/../d/secret", "/d/other", "/link", "/d/link"}
	leaks, opened, refused := 0, 0, 0
	buf := make([]byte, 1)
	for i := 0; i < n || rounds.Load() < int64(n/50); i++ {
		fd, err := unix.Open(dir+names[i%len(names)], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			refused++
			continue
		}
		opened++
		if got, _ := unix.Read(fd, buf); got == 1 && buf[0] == 'S' {
			leaks++
		}
		unix.Close(fd)
	}
	stop.Store(true)
	return value("leaks=%s moved=%s opened=%s refused=%s", anyOrNone(leaks), anyOrNone(int(moved.Load())), anyOrNone(opened), anyOrNone(refused))
}
