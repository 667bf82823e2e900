package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/exec/cover"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/view"
	"github.com/sandlock-go/sandlock/ir"
)

// openView makes the namespaces of a namespaced start and what is mounted in them. It must be called before this thread is
// confined, since Landlock lets nobody mount whose files it guards.
func (s *sandbox) openView() error {
	v := &s.program.View
	if !s.program.Namespaced() || !v.Mount && s.sameIDs(v) {
		return s.openBranch(nil) // there is none: it is for who asks for one
	}
	spec, problems := s.viewSpec(v)
	if len(problems) > 0 {
		return &SetupError{problems}
	}
	if err := s.openBranch(&spec); err != nil {
		return &branchSetupError{&SetupError{[]string{err.Error()}}, err}
	}
	s.childless = noChildren()
	var err error
	s.view, err = view.Open(spec)
	if o := spec.Overlay; o != nil && o.Tree > 0 {
		_ = unix.Close(o.Tree) // it is attached
	}
	if err != nil {
		s.view = nil
		if v.Optional && errors.As(err, new(*view.Failure)) {
			s.notice("program.strict_lifetime: the command starts without namespaces: %s", s.viewFailure(err))
			return nil
		}
		return &SetupError{[]string{s.viewFailure(err)}}
	}
	if within := s.options.within; within != nil {
		within.trees = append(within.trees, s.view.Clones()...)
	}
	s.root = s.view.Root
	for i, m := range spec.Mounts {
		if real, err := s.root.Real(m.Target); err == nil {
			s.mounted = append(s.mounted, ir.ViewMount{Target: ir.Template(real), ReadOnly: m.ReadOnly, Origin: v.Mounts[i].Origin})
		}
	}
	if err := s.view.HostProc; err != nil {
		s.notice("filesystem.proc: this host refuses an own /proc (%v), as containers do whose /proc is partly hidden; the command sees the host's", err)
	}
	return nil
}

// sameIDs reports whether the ids that the policy asks for are this process's own: no namespace is needed then.
func (s *sandbox) sameIDs(v *ir.View) bool {
	return !v.MapIDs || v.UID == uint32(os.Getuid()) && v.GID == uint32(os.Getgid())
}

// viewSpec binds the program's view. All mistakes are reported at once.
func (s *sandbox) viewSpec(v *ir.View) (spec view.Spec, problems []string) {
	path := func(t ir.Template, ref ir.OriginRef) string {
		if t == "" {
			return ""
		}
		p, err := ir.ExpandPath(t, s.bound.lookup)
		if err != nil {
			problems = append(problems, s.ruleError(ref, err).Error())
		}
		return p
	}
	spec = view.Spec{Mount: v.Mount, PID: v.PID, Net: v.Net, Tmp: v.Tmp, TmpBytes: s.program.Limits.Memory, Sys: v.Sys, Masks: v.Masks, ReadOnly: v.ReadOnly}
	if !s.sameIDs(v) {
		spec.IDs = &view.IDs{UID: v.UID, GID: v.GID}
	}
	have, err := kernel.Capabilities()
	if err != nil {
		problems = append(problems, err.Error())
	}
	spec.User = spec.IDs != nil || have>>unix.CAP_SYS_ADMIN&1 == 0
	if !v.Mount {
		return spec, problems
	}
	spec.Hostname = s.program.Name
	switch v.Proc {
	case ir.ProcPrivate:
		spec.Proc = view.ProcPrivate
	case ir.ProcAuto:
		spec.Proc = view.ProcAuto
	}
	if v.Root != "" {
		root := path(v.Root, v.RootOrigin)
		real, err := filepath.EvalSymlinks(root)
		if err == nil {
			err = acceptableRoot(real)
		}
		if err != nil {
			problems = append(problems, s.ruleError(v.RootOrigin, err).Error())
		}
		spec.Root = real
		s.sources = append(s.sources, source{root, v.RootOrigin})
	}
	if v.Dev {
		spec.Devices = s.devices()
	}
	for i := range v.Mounts {
		m := &v.Mounts[i]
		mount := view.Mount{Target: path(m.Target, m.Origin), Source: path(m.Source, m.Origin), ReadOnly: m.ReadOnly, Rule: s.ruleName(m.Origin)}
		s.sources = append(s.sources, source{mount.Source, m.Origin})
		real, err := acceptableMount(mount, spec.Mounts)
		if err != nil {
			problems = append(problems, s.ruleError(m.Origin, err).Error())
		}
		mount.Source = real // what was checked
		spec.Mounts = append(spec.Mounts, mount)
	}
	return spec, problems
}

// acceptableRoot checks a directory that is to be the root, links resolved.
func acceptableRoot(real string) error {
	if real == "/" {
		return errors.New("it is / here, which is no other root")
	}
	if info, err := os.Stat(real); err != nil {
		return err
	} else if !info.IsDir() {
		return &os.PathError{Op: "chroot", Path: real, Err: unix.ENOTDIR}
	}
	return nil
}

// acceptableMount checks what the compiler cannot: values of parameters, and what is there. It returns the source with links
// resolved.
func acceptableMount(m view.Mount, before []view.Mount) (string, error) {
	real, err := filepath.EvalSymlinks(m.Source)
	switch {
	case err != nil:
		return "", err
	case beneath(real, "/proc"):
		return "", fmt.Errorf("%s is %s, of the host's /proc", m.Source, real)
	case m.Target == "/" || beneath(m.Target, "/proc"):
		return "", fmt.Errorf("it would be mounted on %s", m.Target)
	}
	for _, b := range before {
		if b.Target == m.Target {
			return "", fmt.Errorf("%s has a mount already, of %s", m.Target, b.Source)
		}
	}
	return real, nil
}

// devices lists what an own /dev shows: what does no harm, and what the policy grants for GPUs.
func (s *sandbox) devices() []string {
	names := []string{"null", "zero", "full", "random", "urandom", "tty"}
	for i := range s.program.Landlock.Paths {
		r := &s.program.Landlock.Paths[i]
		name, ok := strings.CutPrefix(r.Path, "/dev/")
		switch {
		case !ok || r.Kind != ir.PathNumbered && r.Kind != ir.PathOptional:
		case r.Kind == ir.PathNumbered:
			for _, node := range numbered(r.Path) {
				names = append(names, strings.TrimPrefix(node, "/dev/"))
			}
		case strings.HasPrefix(name, "nvidia") || name == "dri":
			names = append(names, name)
		}
	}
	return names
}

// enterView has the command start in the view.
func (s *sandbox) enterView(plan *stage.Plan) {
	if s.view == nil {
		return
	}
	plan.Namespaces = s.view.Namespaces
	plan.DropGroups = s.program.View.MapIDs && plan.Namespaces.User && mayDropGroups()
	if plan.Dir != "" && !filepath.IsAbs(plan.Dir) {
		if dir, err := filepath.Abs(plan.Dir); err == nil { // else the start says that it is not there
			plan.Dir = dir
		}
	}
	if plan.Dir != "" || !s.program.View.Mount {
		return
	}
	plan.Dir = "/"
	if s.program.View.Root != "" {
		return
	}
	dir, err := os.Getwd()
	if err != nil {
		return
	}
	fd, err := s.root.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		s.notice("the command starts in /: it does not see %s (%v)", dir, err)
		return
	}
	_ = unix.Close(fd)
	plan.Dir = dir
}

// mayDropGroups reports whether setgroups(2) is this process's to call: in a user namespace it may be given up for good
// (user_namespaces(7), "The /proc/pid/setgroups file").
func mayDropGroups() bool {
	have, err := kernel.Capabilities()
	if err != nil || have>>unix.CAP_SETGID&1 == 0 {
		return false
	}
	state, err := os.ReadFile("/proc/self/setgroups")
	return err != nil || strings.TrimSpace(string(state)) != "deny"
}

// finishView mounts what depends on all the rest, and leaves the view to itself.
func (s *sandbox) finishView() (problems []string) {
	if s.view == nil {
		return nil
	}
	if s.program.View.Mount {
		if problems = s.placedSources(); len(problems) > 0 {
			return problems
		}
		if problems = s.coverPaths(); len(problems) > 0 {
			return problems
		}
		if err := s.showFiles(); err != nil {
			return []string{s.viewFailure(err)}
		}
	}
	if b, ok := s.branch.(overlayBranch); ok {
		if err := b.Settle(); err != nil {
			return []string{s.ruleError(s.program.Branch.Origin, err).Error()}
		}
	}
	if err := s.view.Seal(); err != nil {
		return []string{s.viewFailure(err)}
	}
	return nil
}

// source is a path of the host that is mounted, as the policy has it.
type source struct {
	path   string
	origin ir.OriginRef
}

// placedSources finds sources to which a command of an earlier run may have placed the way.
func (s *sandbox) placedSources() (problems []string) {
	for _, src := range s.sources {
		if err := s.placed(src.path); err != nil {
			problems = append(problems, s.ruleError(src.origin, err).Error())
		}
	}
	return problems
}

// coverPaths closes what the policy denies and keeps what it protects.
func (s *sandbox) coverPaths() (problems []string) {
	v := &s.program.View
	storages := s.storagesShown()
	if len(v.Deny) == 0 && len(v.Protect) == 0 && len(storages) == 0 {
		return nil
	}
	r := cover.Request{Root: s.root}
	if !s.shared {
		r.Making = func() error { // a signal that ended the process now would leave placeholders behind
			_, err := catchSignals(s.program.VerifiesExec())
			return err
		}
	}
	for _, o := range s.opened {
		r.Grants = append(r.Grants, cover.Grant{Path: o.real, Write: (&ir.PathRule{Access: o.access}).Writes()})
	}
	refs := map[string]ir.OriginRef{}
	bind := func(list []ir.ViewPath, expand func(ir.Template, ir.Lookup) (string, error)) (rules []cover.Rule) {
		for i := range list {
			path, err := expand(list[i].Path, s.bound.lookup)
			if err != nil {
				problems = append(problems, s.ruleError(list[i].Origin, err).Error())
			}
			name := s.ruleName(list[i].Origin)
			refs[name] = list[i].Origin
			rules = append(rules, cover.Rule{Path: path, Name: name})
		}
		return rules
	}
	r.Deny, r.Protect = append(bind(v.Deny, ir.ExpandPath), storages...), bind(v.Protect, ir.ExpandProtect)
	if len(problems) > 0 {
		return problems
	}
	plan, err := cover.Make(r)
	if err != nil {
		return []string{err.Error()}
	}
	s.view.Cover(plan)
	s.covered = map[string]covered{}
	for _, c := range plan.Covers {
		s.covered[c.Path] = covered{c.Kind, refs[c.Rule]}
	}
	return nil
}

// ruleName names a rule in errors, with its place.
func (s *sandbox) ruleName(ref ir.OriginRef) string {
	name := rulePath(s.program, ref)
	if at := where(s.program, ref); at != "" {
		name = at + ": " + name
	}
	return name
}

// viewFailure explains why the view could not be made: what failed, and which setting of the host forbids it.
func (s *sandbox) viewFailure(err error) string {
	text := err.Error()
	for _, r := range s.program.Requires {
		if r.Feature == ir.FeatureNamespaces || r.Feature == ir.FeatureUserNamespace {
			text += " (for " + strings.Join(r.Fields, ", ") + ")"
		}
	}
	failed := (*view.Failure)(nil)
	if !errors.As(err, &failed) {
		return text
	}
	step := kernel.StepMount
	switch {
	case failed.What == stage.MakeNamespaces:
		step = kernel.StepNamespaces
	case strings.HasPrefix(failed.What, "write /proc/self/"):
		step = kernel.StepMapIDs
	case failed.What == view.MountProc:
		step = kernel.StepMountProc
	}
	if failed.Err == unix.EPERM || failed.Err == unix.ENOSPC || failed.Err == unix.EACCES || failed.Err == unix.EINVAL && step != kernel.StepMount {
		text += ": " + kernel.NamespaceFailure(failed.Err, step)
	}
	return text
}

// notice tells the person at the keyboard what the policy left to the host to decide.
func (s *sandbox) notice(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.options.Audit.Write(audit.Line{Event: "warning", Reason: text})
	if !s.shared {
		fmt.Fprintln(os.Stderr, "sandlock-exec: "+text)
	}
}

// onHost returns the host's path of a file of the command's view; ok tells whether it has one.
func (s *sandbox) onHost(path string) (host string, ok bool) {
	if s.view == nil {
		return path, true
	}
	return s.view.OnHost(path)
}
