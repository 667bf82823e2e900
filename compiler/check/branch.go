package check

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

// checkBranch: what is said about a branch needs one, and a branch must lie where nothing covers it or leads around it. What
// parameters and symbolic links make of the paths the executor finds out.
func checkBranch(c *checker) {
	fs := &c.Filesystem
	if lower.Branches(c.Policy) {
		checkWorkdir(c)
		checkBranchMounts(c)
		if lower.BranchFS(c.Policy) {
			checkBranchFS(c)
		} else {
			checkStorage(c)
		}
		return
	}
	without := "without filesystem.workdir it has no effect"
	if fs.Workdir.Set {
		without = `filesystem.isolation is "none", so it has no effect`
		if disk := c.Limits.Disk; disk.Set {
			c.add(diag.At(disk.Origin, "requires", `bounds what a branch holds, and filesystem.isolation is "none"`).WithNote(fs.Isolation.Origin.Place, "set at"))
		}
	}
	for _, v := range []policy.Val[string]{fs.Workdir, fs.Storage, fs.OnExit, fs.OnError} {
		if v.Set && v.Origin.Kind != ir.OriginDefault {
			d := diag.At(v.Origin, "no-effect", "%s", without).AsWarning()
			if fs.Workdir.Set {
				d = d.WithNote(fs.Isolation.Origin.Place, "set at")
			}
			c.add(d)
		}
	}
}

func checkWorkdir(c *checker) {
	fs, dir := &c.Filesystem, c.Filesystem.Workdir.V
	refuse := func(format string, args ...any) { c.errorf(fs.Workdir.Origin, "workdir", format, args...) }
	if dir == "/" {
		refuse("the whole file system cannot be kept in a branch")
		return
	}
	for _, kernel := range ir.KernelDirs {
		if beneath(dir, kernel) {
			refuse("what lies in %s cannot be kept in a branch", kernel)
			return
		}
	}
	if _, on := c.view().Behind(dir); on == nil && fs.Tmp.V == "private" && beneath(dir, "/tmp") {
		d := diag.At(fs.Workdir.Origin, "workdir", "it would be empty: the sandbox has a /tmp of its own")
		c.add(d.WithNote(fs.Tmp.Origin.Place, "asked for at"))
	}
	if !c.mayWriteIn(dir) {
		d := diag.At(fs.Workdir.Origin, "no-effect", "nothing in it can be written: no write grant names it, what contains it, or what is in it").AsWarning()
		c.add(d.WithHint("filesystem.workdir grants nothing by itself: list it in filesystem.write"))
	}
}

// mayWriteIn reports whether a write grant speaks of a directory, as far as the text shows: what begins with different
// parameters may be the same, though not the devices that nearly every policy grants.
func (c *checker) mayWriteIn(dir string) bool {
	return slices.ContainsFunc(lower.Grants(c.Policy), func(g lower.Grant) bool {
		path := g.Path.V
		switch {
		case !g.Writes:
			return false
		case leading(path) == leading(dir):
			return beneath(path, dir) || beneath(dir, path)
		}
		return !slices.ContainsFunc(ir.KernelDirs, func(kernel string) bool { return beneath(path, kernel) })
	})
}

// leading returns the parameter that a path begins with, "" where it begins with a slash.
func leading(path string) string {
	name, _, ok := strings.Cut(path, "}")
	if !ok || !strings.HasPrefix(name, "${") {
		return ""
	}
	return name
}

// hostPath returns where on the host a path of the command's name space lies, unless something is mounted there.
func (c *checker) hostPath(path string) string {
	return (&ir.View{Root: c.Filesystem.Chroot.V}).HostPath(path)
}

// view has the mounts in the order of the policy.
func (c *checker) view() *ir.View {
	v := &ir.View{Root: c.Filesystem.Chroot.V}
	for _, it := range c.Filesystem.Mount.Items {
		v.Mounts = append(v.Mounts, ir.ViewMount{Target: it.V.Target.V, Source: it.V.Source.V, ReadOnly: it.V.Mode.V == "ro"})
	}
	return v
}

func checkBranchMounts(c *checker) {
	dir := c.Filesystem.Workdir
	view := c.view()
	files, on := view.Behind(dir.V)
	for i, it := range c.Filesystem.Mount.Items {
		target, source := it.V.Target.V, it.V.Source.V
		writable := it.V.Mode.V != "ro"
		shares := beneath(source, files) || beneath(files, source)
		at := func(v policy.Val[string]) policy.Origin { return place(v.Origin, it.Origin) }
		var d diag.Diagnostic
		switch {
		case on == &view.Mounts[i] && lower.BranchFS(c.Policy):
			d = diag.At(at(it.V.Target), "workdir", "it would cover the branch, and changes would reach %s", source)
		case on == &view.Mounts[i] && writable: // the branch lies on it
			continue
		case on == &view.Mounts[i]:
			d = diag.At(at(it.V.Target), "workdir", "the branch lies on it, and it is read-only: a commit would change %s", source)
		case shares && lower.BranchFS(c.Policy):
			d = diag.At(at(it.V.Source), "workdir", "it would lead around the branch: at %s is what BranchFS is asked by", target)
		case writable && shares:
			d = diag.At(at(it.V.Source), "workdir", "it would lead around the branch: its files can be changed at %s", target)
			d.Hint = `mount it with mode "ro"`
		case writable && beneath(target, dir.V):
			d = diag.At(at(it.V.Target), "workdir", "what is changed here is not kept in the branch, but reaches %s at once", source).AsWarning()
		default:
			continue
		}
		c.add(d.WithNote(dir.Origin.Place, "the branch is at"))
	}
	if on == nil {
		return
	}
	for _, g := range lower.Grants(c.Policy) {
		path := g.Path.V
		if host := c.hostPath(path); g.Writes && c.ofTheHost(path) && (beneath(host, files) || beneath(files, host)) {
			d := diag.At(place(g.Path.Origin, g.Origin), "workdir", "it would lead around the branch: it has files in common with %s, which is mounted at %s", on.Source, on.Target)
			c.add(d.WithNote(dir.Origin.Place, "the branch is at"))
		}
	}
}

// checkBranchFS: it keeps branches where it was told to when it was mounted, and bounds them by itself.
func checkBranchFS(c *checker) {
	at := c.Filesystem.Isolation.Origin.Place
	if storage := c.Filesystem.Storage; storage.Set {
		c.add(diag.At(storage.Origin, "no-effect", "BranchFS keeps branches in a storage of its own").AsWarning().WithNote(at, "set at"))
	}
	if disk := c.Limits.Disk; disk.Set {
		c.add(diag.At(disk.Origin, "requires", "what a branch of a BranchFS holds is not bounded by the executor").WithNote(at, "set at"))
	}
}

// checkStorage: who can change what is kept changes what is applied, and no grant of the working directory allows that.
func checkStorage(c *checker) {
	fs := &c.Filesystem
	storage := fs.Storage
	if !storage.Set {
		return
	}
	const why = "the command could change its own branch: "
	switch dir, _ := c.view().Behind(fs.Workdir.V); {
	case storage.V == dir:
		c.add(diag.At(storage.Origin, "storage", "is filesystem.workdir itself").WithNote(fs.Workdir.Origin.Place, "set at"))
		return
	case beneath(storage.V, dir): // the branch hides it
		d := diag.At(storage.Origin, "storage", "it lies in filesystem.workdir: other policies that let that be written let what is kept here be changed").AsWarning()
		c.add(d.WithNote(fs.Workdir.Origin.Place, "set at"))
		return
	}
	for _, g := range lower.Grants(c.Policy) {
		if g.Writes && c.ofTheHost(g.Path.V) && beneath(storage.V, c.hostPath(g.Path.V)) {
			o := place(g.Path.Origin, g.Origin)
			c.add(diag.At(storage.Origin, "storage", why+"%s can be written", g.Path.V).WithNote(o.Place, "granted at"))
			return
		}
	}
	for _, it := range fs.Mount.Items {
		if it.V.Mode.V != "ro" && beneath(storage.V, it.V.Source.V) {
			c.add(diag.At(storage.Origin, "storage", why+"it appears at %s", it.V.Target.V).WithNote(it.Origin.Place, "mounted at"))
			return
		}
	}
}

// ofTheHost reports whether what the command sees at a path is the host's, and nothing mounted there.
func (c *checker) ofTheHost(path string) bool {
	if c.Filesystem.Tmp.V == "private" && beneath(path, "/tmp") {
		return false
	}
	return !slices.ContainsFunc(c.Filesystem.Mount.Items, func(it policy.Val[policy.Mount]) bool { return beneath(path, it.V.Target.V) })
}
