// Package inherited records what the executor was started with before the Go runtime changes it.
//
// Package syscall raises the soft RLIMIT_NOFILE in its own initialisation, and keeps the original to itself; a
// command that is started by a raw clone would inherit the raised limit. This package imports nothing, and its path
// sorts before "syscall", so the language's order of initialisation (spec, "Program initialization") runs it first.
// It must therefore stay free of imports.
package inherited

// Limit is struct rlimit of getrlimit(2).
type Limit struct{ Cur, Max uint64 }

const rlimitNofile = 7

// OpenFiles is RLIMIT_NOFILE as it was when the process started; zero if it could not be read.
var OpenFiles = read()

func read() (l Limit) {
	if getrlimit(rlimitNofile, &l) != 0 {
		return Limit{}
	}
	return l
}

//go:noescape
func getrlimit(resource uintptr, limit *Limit) uintptr
