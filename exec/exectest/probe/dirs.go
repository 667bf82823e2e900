package main

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dirCommands list directories. CALL is getdents64 or getdents; PATH "-" is standard input.
var dirCommands = []command{
	{"list", "PATH", 1, func(args []string) outcome {
		f, err := os.Open(args[0])
		if err != nil {
			return failedAt("open", err)
		}
		return names(f)
	}},
	// What the kernel shows of a process may depend on who lists it.
	{"list-parent", "NAME", 1, func(args []string) outcome {
		list, got := listRaw("getdents64", "/proc/"+itoa(os.Getppid())+"/"+args[0], 4096)
		if got != succeeded {
			return got
		}
		return value("entries=%v", len(list) > 2)
	}},
	{"list-stdin", "", 0, func([]string) outcome { return names(os.Stdin) }},
	// Each entry as NAME/TYPE, with calls that have room for SIZE bytes.
	{"getdents", "CALL PATH SIZE", 3, func(args []string) outcome {
		list, got := listRaw(args[0], args[1], number(args[2]))
		if got != succeeded {
			return got
		}
		var text []string
		for _, e := range list {
			text = append(text, e.name+"/"+itoa(int(e.kind)))
		}
		return value("%s", strings.Join(text, " "))
	}},
	{"getdents-order", "CALL PATH SIZE", 3, func(args []string) outcome {
		list, got := listRaw(args[0], args[1], number(args[2]))
		if got != succeeded {
			return got
		}
		list = slices.DeleteFunc(list, func(e dirent) bool { return e.name == "." || e.name == ".." })
		sorted := slices.IsSortedFunc(list, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
		return value("entries=%d sorted=%v", len(list), sorted)
	}},
	// Goes back to where it was after each entry and reads on from there: whether all that followed follows again.
	{"getdents-seek", "CALL PATH", 2, func(args []string) outcome {
		list, got := listRaw(args[0], args[1], 4096)
		if got != succeeded {
			return got
		}
		fd, err := unix.Open(args[1], unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return failedAt("open", err)
		}
		for i, e := range list {
			if _, err := unix.Seek(fd, e.next, unix.SEEK_SET); err != nil {
				return failedAt("seek", err)
			}
			rest, got := readEntries(args[0], fd, 280)
			if got != succeeded {
				return got
			}
			if !slices.EqualFunc(rest, list[i+1:], func(a, b dirent) bool { return a.name == b.name }) {
				return value("after %s: %d entries, want %d", e.name, len(rest), len(list)-i-1)
			}
		}
		return succeeded
	}},
	// One call that a C library never makes. CASE: short, file, opath, closed, unmapped, half (mapped), huge (count),
	// removed.
	{"getdents-case", "CALL DIR CASE", 3, getdentsCase},
}

func names(dir *os.File) outcome {
	list, err := dir.Readdirnames(-1) // os.ReadDir would sort
	if err != nil {
		return result(err)
	}
	return value("%s", strings.Join(list, " "))
}

type dirent struct {
	name string
	kind byte
	next int64
}

func listRaw(call, path string, size int) ([]dirent, outcome) {
	if path == "-" {
		return readEntries(call, 0, size)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, failedAt("open", err)
	}
	defer unix.Close(fd)
	return readEntries(call, fd, size)
}

func readEntries(call string, fd, size int) (list []dirent, got outcome) {
	buf := make([]byte, size)
	for {
		n, err := getdents(call, fd, address(buf), uint64(size))
		if err != nil {
			return nil, result(err)
		}
		if n == 0 {
			return list, succeeded
		}
		for b := buf[:n]; len(b) > 0; {
			length := int(binary.NativeEndian.Uint16(b[16:]))
			if length < 20 || length%8 != 0 || length > len(b) {
				return nil, value("record of %d bytes where %d are left", length, len(b))
			}
			e := dirent{next: int64(binary.NativeEndian.Uint64(b[8:])), kind: b[18]}
			name := b[19:length]
			if call == "getdents" {
				name, e.kind = b[18:length-1], b[length-1]
			}
			text, _, _ := strings.Cut(string(name), "\x00")
			e.name = text
			list = append(list, e)
			b = b[length:]
		}
	}
}

func getdents(call string, fd int, buf uintptr, count uint64) (int, error) {
	nr := uintptr(unix.SYS_GETDENTS64)
	if call == "getdents" {
		nr = legacyGetdents
	}
	n, _, errno := unix.Syscall(nr, uintptr(fd), buf, uintptr(count))
	return int(n), nilIfZero(errno)
}

func getdentsCase(args []string) outcome {
	call, dir := args[0], args[1]
	if args[2] == "removed" {
		dir += "/removed-" + itoa(os.Getpid())
		if err := os.Mkdir(dir, 0o755); err != nil {
			return failedAt("mkdir", err)
		}
	}
	flags := map[string]int{"opath": unix.O_PATH}[args[2]]
	path := dir
	if args[2] == "file" {
		path, flags = os.Args[0], unix.O_RDONLY
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return failedAt("open", err)
	}
	page := os.Getpagesize()
	pages, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return failedAt("mmap", err)
	}
	buf, count := address(pages), uint64(page)
	switch args[2] {
	case "short":
		count = 23
	case "closed":
		fd = 1 << 20
	case "unmapped":
		buf = 8
	case "half":
		if err := unix.Mprotect(pages[page:], unix.PROT_NONE); err != nil {
			return failedAt("mprotect", err)
		}
		buf += uintptr(page) - 64
	case "huge":
		count = 1<<32 - 1
	case "removed":
		if err := unix.Rmdir(dir); err != nil {
			return failedAt("rmdir", err)
		}
	}
	n, err := getdents(call, fd, buf, count)
	if err == nil && n > 0 {
		return "value entries"
	}
	return result(err)
}
