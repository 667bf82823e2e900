package lower

import "github.com/sandlock-go/sandlock/compiler/seccomp"

// dirs has the supervisor answer the calls that list directories, if they are to be listed in order. No register tells
// whether the kernel's order would do.
func dirs(u *Unit) {
	src, d := &u.Policy.Determinism.DeterministicDirs, &u.Program.Determinism
	if !src.V {
		return
	}
	d.SortedDirs, d.DirsOrigin = true, u.ref(src.Origin)
	u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{
		Names: []string{"getdents64", "getdents"}, Reason: "determinism.deterministic_dirs", Origin: d.DirsOrigin,
	})
}
