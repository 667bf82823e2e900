package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/cover"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// rulesets are the two Landlock rulesets of a start: the command's, and the executor's own, which grants the same and
// the little that the executor itself still needs. The command's domain is nested in the executor's, so the executor's
// must never be the narrower one: it handles no right that the command's does not.
type rulesets struct {
	command, own *kernel.Ruleset
	scoped       bool // own keeps signals within the sandbox
}

func (r *rulesets) close() {
	for _, s := range []*kernel.Ruleset{r.command, r.own} {
		if s != nil {
			s.Close()
		}
	}
}

// confinement builds the rulesets. All missing paths are reported at once.
func (s *sandbox) confinement(handled ir.Rights) (*rulesets, []string) {
	rs := &rulesets{}
	s.reach = ir.Landlock{Handled: handled}
	s.writes = slices.ContainsFunc(s.program.Landlock.Paths, func(r ir.PathRule) bool { return r.Access&abi.FSWriteFile != 0 })
	var err error
	if rs.command, err = kernel.NewRuleset(handled.FS, handled.Net, handled.Scoped); err != nil {
		return rs, []string{err.Error()}
	}
	if s.supervised() {
		// The signal scope tells the sandbox's processes from all others, see family.
		signals := handled.Scoped & abi.ScopeSignal
		rs.scoped = signals != 0
		scopes := signals
		if s.net.Unix != ir.UnixNone {
			scopes |= handled.Scoped & abi.ScopeAbstractUnix // the executor connects in place of the command
		}
		if rs.own, err = kernel.NewRuleset(handled.FS, handled.Net&^s.ownNet(), scopes); err != nil {
			return rs, []string{err.Error()}
		}
	}
	var problems []string
	for i := range s.program.Landlock.Paths {
		if err := s.grantPath(rs, &s.program.Landlock.Paths[i]); err != nil {
			problems = append(problems, err.Error())
		}
	}
	problems = append(problems, s.planted(s.opened)...)
	problems = append(problems, s.plantedByStages()...)
	for i := range s.program.Landlock.Ports {
		if err := s.grantPort(rs, &s.program.Landlock.Ports[i], handled.Net); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if rs.own != nil {
		problems = append(problems, s.ownNeeds(rs.own)...)
		problems = append(problems, s.ownPorts(rs.own)...)
	}
	return rs, problems
}

// grantPath opens the rule's path once, so that both rulesets and all later decisions speak of the same file.
func (s *sandbox) grantPath(rs *rulesets, r *ir.PathRule) error {
	path, err := ir.ExpandPath(r.Path, s.bound.lookup)
	if err != nil {
		return s.ruleError(r.Origin, err)
	}
	if r.Kind == ir.PathNumbered {
		for _, node := range numbered(path) {
			if err := s.grantOpened(rs, r, node); err != nil {
				return err
			}
		}
		return nil
	}
	return s.grantOpened(rs, r, path)
}

func (s *sandbox) grantOpened(rs *rulesets, r *ir.PathRule, path string) error {
	fd, err := s.root.Open(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		if r.Kind != ir.PathRequired && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES)) {
			return nil
		}
		return s.ruleError(r.Origin, fmt.Errorf("path %s: %w (mark it optional if it may be missing)", path, err))
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return s.ruleError(r.Origin, fmt.Errorf("path %s: %w", path, err))
	}
	access := r.Access
	if r.Kind == ir.PathNumbered && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil // a device node was meant
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= abi.FSFileMask // the kernel refuses directory rights on a file
	}
	if s.needsRealPaths || s.writes || strings.Contains(r.Path, "${") {
		real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil {
			return s.ruleError(r.Origin, fmt.Errorf("path %s: where it leads: %w", path, err))
		}
		if err := s.acceptable(r, real, access, &st); err != nil {
			return s.ruleError(r.Origin, err)
		}
		if err := s.sparesGroups(fd, real, access); err != nil {
			return s.ruleError(r.Origin, err)
		}
		s.opened = append(s.opened, opened{path, real, access, r.Origin})
		s.reach.Paths = append(s.reach.Paths, ir.PathRule{Path: real, Access: access, Kind: ir.PathRequired, Origin: r.Origin})
	}
	if err := rs.command.AllowPath(fd, access); err != nil {
		return s.ruleError(r.Origin, fmt.Errorf("path %s: %w", path, err))
	}
	if rs.own != nil {
		if err := rs.own.AllowPath(fd, access); err != nil {
			return s.ruleError(r.Origin, fmt.Errorf("path %s: %w", path, err))
		}
	}
	return nil
}

// acceptable refuses grants that would undo the policy: one that leads elsewhere than its parameter was checked to
// lead, and write access to the files that this sandbox itself rests on.
func (s *sandbox) acceptable(r *ir.PathRule, real string, access uint64, st *unix.Stat_t) error {
	names, _ := ir.Names(r.Path)
	if len(names) > 0 && (real == "/" || beneath(real, "/proc")) {
		// What a policy may grant of these, its author writes out.
		return fmt.Errorf("%s is %s here, which a parameter cannot grant", r.Path, real)
	}
	if root, ok := s.rootOf(r.Path); ok && !beneath(real, root) {
		return fmt.Errorf("%s leads out of %s, to %s", r.Path, root, real)
	}
	if closed := s.program.View.Exposes(real, access); closed != "" {
		return fmt.Errorf("%s is %s here, beneath or above %s, which stays closed: the policy itself has to name it", r.Path, real, closed)
	}
	if access&abi.FSWriteFile == 0 {
		return nil
	}
	host, there := s.onHost(real)
	for _, file := range s.options.Guarded {
		if there && beneath(file, host) || s.view != nil && liesIn(file, st) {
			return fmt.Errorf("%s lies beneath %s, which the policy lets the command write: it could rewrite it; keep it elsewhere", file, real)
		}
	}
	return nil
}

// liesIn reports whether a file of the host is one that the command sees, or lies in it, whatever that is called there: mounts
// and the links on the way to their targets give things other names.
func liesIn(file string, seen *unix.Stat_t) bool {
	for {
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err == nil && st.Dev == seen.Dev && st.Ino == seen.Ino {
			return true
		}
		if file == "/" || file == "." {
			return false
		}
		file = filepath.Dir(file)
	}
}

// rootOf returns the value of the path parameter or built-in that a template begins with.
func (s *sandbox) rootOf(t ir.Template) (root string, ok bool) {
	name, found := strings.CutPrefix(t, "${")
	if !found {
		return "", false
	}
	name, _, _ = strings.Cut(name, "}")
	root, ok = s.bound.lookup(name)
	return root, ok && strings.HasPrefix(root, "/")
}

// opened is a rule as it was opened: the path that the policy wrote, and where it led.
type opened struct {
	path, real string
	access     uint64
	origin     ir.OriginRef
}

// planted finds grants beneath a writable directory that lead out of it: a command of an earlier run may have put the
// link there, to be granted what it points to in the next.
func (s *sandbox) planted(list []opened) (problems []string) {
	for _, o := range list {
		for _, w := range list {
			if w.access&abi.FSWriteFile != 0 && o.path != w.path && beneath(o.path, w.path) && !beneath(o.real, w.real) {
				problems = append(problems, s.ruleError(o.origin, fmt.Errorf("%s leads to %s, out of %s, where commands may write: they could have placed that link",
					o.path, o.real, w.path)).Error())
				break
			}
		}
	}
	return problems
}

// placed refuses a path of the host that the policy names, but not as a grant, where it leads out of a directory in which
// commands may write by a link that lies there: one of an earlier run could have placed it. The file itself need not exist.
func (s *sandbox) placed(path string) error {
	links, real, err := cover.Links(kernel.Root{}, path)
	if err == nil {
		_, err = os.Lstat(filepath.Dir(real))
	} else if errors.Is(err, cover.ErrSelf) {
		err = nil // this process reads what it means for this process
	}
	if err != nil {
		return err
	}
	for _, w := range s.opened {
		host, there := s.onHost(w.real)
		if w.access&abi.FSWriteFile == 0 || !there || beneath(real, host) {
			continue
		}
		for _, link := range links {
			if link != host && beneath(link, host) {
				return fmt.Errorf("%s leads to %s by the link %s, out of %s, where commands may write: they could have placed that link", path, real, link, host)
			}
		}
	}
	return nil
}

func (s *sandbox) grantPort(rs *rulesets, r *ir.PortRule, handledNet uint64) error {
	access := r.Access & handledNet
	if access == 0 {
		return nil
	}
	port := r.Port
	if r.Param != "" {
		value, ok := s.bound.lookup(r.Param)
		n, err := strconv.ParseUint(value, 10, 16)
		if !ok || err != nil {
			return s.ruleError(r.Origin, fmt.Errorf("parameter %q is no port: %q", r.Param, value))
		}
		port = uint16(n)
	}
	s.reach.Ports = append(s.reach.Ports, ir.PortRule{Access: access, Port: port, Origin: r.Origin})
	err := rs.command.AllowPort(port, access)
	if own := access &^ s.ownNet(); err == nil && rs.own != nil && own != 0 {
		err = rs.own.AllowPort(port, own)
	}
	if err != nil {
		return s.ruleError(r.Origin, fmt.Errorf("port %d: %w", port, err))
	}
	return nil
}

// ownNeeds grants the executor what it needs itself once the command runs: /proc to count and end processes, the
// private temporary directory and the control group to remove; where program images are changed, their memory in /proc.
func (s *sandbox) ownNeeds(own *kernel.Ruleset) []string {
	needs := []struct {
		path   string
		access uint64
	}{{"/proc", abi.FSReadFile | abi.FSReadDir}}
	if changesImages(s.program) {
		needs[0].access |= abi.FSWriteFile
	}
	if s.bound.tmp != "" {
		needs = append(needs,
			struct {
				path   string
				access uint64
			}{s.bound.tmp, abi.FSReadDir | abi.FSRemoveDir | abi.FSRemoveFile},
			struct {
				path   string
				access uint64
			}{filepath.Dir(s.bound.tmp), abi.FSRemoveDir})
	}
	if p := s.groups.parent; p != nil {
		needs = append(needs, struct {
			path   string
			access uint64
		}{p.Dir(), abi.FSRemoveDir})
	}
	var problems []string
	if !s.root.Own() { // the numbers of processes there
		if fd, err := s.root.Open("/proc", unix.O_PATH|unix.O_CLOEXEC); err == nil {
			err = own.AllowPath(fd, abi.FSReadFile|abi.FSReadDir)
			_ = unix.Close(fd)
			if err != nil {
				problems = append(problems, fmt.Sprintf("confine the executor: /proc of the command: %v", err))
			}
		}
	}
	for _, n := range needs {
		fd, err := unix.Open(n.path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			err = own.AllowPath(fd, n.access)
			_ = unix.Close(fd)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("confine the executor: %s: %v", n.path, err))
		}
	}
	return problems
}

func (s *sandbox) ruleError(ref ir.OriginRef, err error) error {
	at := where(s.program, ref)
	if at == "" {
		return err
	}
	return fmt.Errorf("%s: %s: %w", at, rulePath(s.program, ref), err)
}

// numbered lists the files named prefix followed by decimal digits.
func numbered(prefix string) []string {
	dir, base := filepath.Split(prefix)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), base)
		if _, err := strconv.ParseUint(digits, 10, 16); ok && err == nil {
			list = append(list, dir+e.Name())
		}
	}
	return list
}
