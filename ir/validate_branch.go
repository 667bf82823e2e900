package ir

import (
	"errors"
	"fmt"
	"strings"
)

// checkBranch holds what the executor relies on when it keeps changes apart.
func (p *Program) checkBranch() error {
	b, v := &p.Branch, &p.View
	if b.Kind == BranchNone {
		if *b != (Branch{}) {
			return errors.New("of no kind, and something about it")
		}
		return nil
	}
	switch {
	case b.Kind > BranchFS:
		return fmt.Errorf("kind %d is unknown", b.Kind)
	case b.Workdir == "":
		return errors.New("no working directory")
	case !v.Mount || !v.PID:
		// Who is still there when the branch is applied could change it meanwhile.
		return errors.New("without a mount and a PID namespace")
	case v.Optional:
		return errors.New("in a view that may be left out")
	}
	for _, a := range []struct {
		when   string
		action BranchAction
	}{{"on_exit", b.OnExit}, {"on_error", b.OnError}} {
		if a.action < BranchCommit || a.action > BranchKeep {
			return fmt.Errorf("%s: action %d is unknown", a.when, a.action)
		}
	}
	if b.Kind == BranchFS && (b.Storage != "" || b.Disk != 0) {
		return errors.New("a BranchFS with a storage or a bound of ours")
	}
	for _, t := range []Template{b.Workdir, b.Storage} {
		if t == "" {
			continue
		}
		if err := p.checkPath(t); err != nil {
			return err
		}
	}
	if err := b.Misplaced(v, &p.Landlock); err != nil {
		return err
	}
	return p.checkRefs(map[string]OriginRef{"workdir": b.Origin, "disk": b.DiskOrigin})
}

// KernelDirs are where no branch can be: what lies there is no files that could be copied.
var KernelDirs = []string{"/dev", "/proc", "/sys"}

// Misplaced says why a branch cannot be kept where its paths and those of the view and the grants lie: it would be covered,
// or there would be a way around it, or the command could change what is kept. Paths are compared as text: they must all be
// expanded, and should be resolved, or all be as the policy wrote them.
func (b *Branch) Misplaced(v *View, l *Landlock) error {
	dir := b.Workdir
	if dir == "/" {
		return errors.New("the working directory is the root")
	}
	for _, kernel := range KernelDirs {
		if beneath(dir, kernel) {
			return fmt.Errorf("the working directory %s lies in %s", dir, kernel)
		}
	}
	files, on := v.Behind(dir)
	switch {
	case on == nil && v.Tmp && beneath(dir, "/tmp"):
		return fmt.Errorf("the working directory %s lies in a /tmp that is empty", dir)
	case on != nil && b.Kind == BranchFS:
		return fmt.Errorf("the mount at %s covers the working directory %s", on.Target, dir)
	case on != nil && on.ReadOnly:
		return fmt.Errorf("the working directory %s lies in the mount at %s, which is read-only: a commit would change %s", dir, on.Target, on.Source)
	}
	for i := range v.Mounts {
		m := &v.Mounts[i]
		if m == on { // the branch lies on it
			continue
		}
		if (!m.ReadOnly || b.Kind == BranchFS) && overlap(m.Source, files) {
			return fmt.Errorf("the mount at %s leads around the branch: %s and the working directory %s have files in common", m.Target, m.Source, files)
		}
	}
	for i := range l.Paths {
		// Without a mount the branch covers them where they are.
		if r := &l.Paths[i]; on != nil && r.Writes() && v.shown(r.Path) && overlap(v.HostPath(r.Path), files) {
			return fmt.Errorf("the grant of %s leads around the branch: it has files in common with %s, which is mounted at %s", r.Path, on.Source, on.Target)
		}
	}
	if b.Storage == "" {
		return nil
	}
	if b.Storage == files {
		return errors.New("the storage is the working directory")
	}
	return b.changeable(v, l)
}

func overlap(a, b string) bool { return beneath(a, b) || beneath(b, a) }

// changeable says which grant or mount would let the command change what is kept in the storage. The branch hides a storage that
// lies in the working directory, and no mount leads around the branch.
func (b *Branch) changeable(v *View, l *Landlock) error {
	if files, _ := v.Behind(b.Workdir); beneath(b.Storage, files) {
		return nil
	}
	for i := range l.Paths {
		if r := &l.Paths[i]; r.Writes() && v.shown(r.Path) && beneath(b.Storage, v.HostPath(r.Path)) {
			return fmt.Errorf("the storage %s lies in %s, which the command may change", b.Storage, r.Path)
		}
	}
	for i := range v.Mounts {
		if m := &v.Mounts[i]; !m.ReadOnly && beneath(b.Storage, m.Source) {
			return fmt.Errorf("the storage %s lies in %s, which is mounted at %s", b.Storage, m.Source, m.Target)
		}
	}
	return nil
}

// HostPath returns where on the host a path of the command's name space lies that nothing is mounted over.
func (v *View) HostPath(p string) string {
	if v.Root == "" {
		return p
	}
	return strings.TrimSuffix(v.Root+p, "/")
}

// Behind returns where on the host the files lie that the command sees at a path, by the view's own mounts: on is the one that
// shows them, the last that covers the path; nil if none does.
func (v *View) Behind(p string) (host string, on *ViewMount) {
	for i := range v.Mounts {
		if m := &v.Mounts[i]; beneath(p, m.Target) {
			on = m
		}
	}
	if on == nil {
		return v.HostPath(p), nil
	}
	return strings.TrimSuffix(on.Source, "/") + strings.TrimPrefix(p, on.Target), on
}

// shown reports whether a path of the command's name space is one of the host's, and not of something mounted there.
func (v *View) shown(p string) bool {
	if v.Tmp && beneath(p, "/tmp") {
		return false
	}
	for i := range v.Mounts {
		if beneath(p, v.Mounts[i].Target) {
			return false
		}
	}
	return true
}
