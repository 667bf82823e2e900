package exec

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/ir"
)

// defaultPath is searched when the command's environment has no PATH.
const defaultPath = "/usr/local/bin:/usr/bin:/bin"

// commandLine returns what to run: the given command, or the policy's own.
func commandLine(p *ir.Process, given []string, lookup ir.Lookup) ([]string, error) {
	if len(given) > 0 {
		return given, nil
	}
	if p.Exec == "" {
		return nil, errors.New("no command: write it after --, or set program.exec in the policy")
	}
	path, err := ir.ExpandPath(p.Exec, lookup)
	if err != nil {
		return nil, err
	}
	argv := []string{path}
	for _, t := range p.Args {
		arg, err := ir.Expand(t, lookup)
		if err != nil {
			return nil, err
		}
		argv = append(argv, arg)
	}
	return argv, nil
}

// candidates lists the files that a name may mean, in the order of PATH (execvp(3)); those that do not exist are
// left out here, whether one may be executed is for the kernel to say in the sandbox.
func candidates(root kernel.Root, name string, env []string, dir string) ([]string, error) {
	if name == "" {
		return nil, &CommandError{Code: CodeNotFound, Err: errors.New("the command is empty")}
	}
	if strings.Contains(name, "/") {
		return []string{name}, nil
	}
	path := lookupEnv(env, "PATH")
	if path == "" {
		path = defaultPath
	}
	var found []string
	for _, d := range filepath.SplitList(path) {
		if d == "" {
			d = "."
		}
		file := d + "/" + name
		at := file
		if dir != "" && !filepath.IsAbs(file) {
			at = dir + "/" + file // not cleaned: links may stand before ".."
		}
		if isFile(root, at) {
			found = append(found, file)
		}
	}
	if len(found) == 0 {
		return nil, &CommandError{Code: CodeNotFound, Err: fmt.Errorf("%s: not found in PATH (%s)", name, path)}
	}
	return found, nil
}

// isFile reports whether a path of the command's leads to a regular file. Beneath another root than this process's, where
// relative paths begin is not known: such a path may, and the kernel says.
func isFile(root kernel.Root, path string) bool {
	var st unix.Stat_t
	if root.Own() {
		return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
	}
	if !filepath.IsAbs(path) {
		return true
	}
	fd, err := root.Open(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// startFailure turns a failed step into the error, and with it the exit code, that a user expects.
func (s *sandbox) startFailure(err error) error {
	var step *stage.StepError
	if !errors.As(err, &step) {
		return &SetupError{[]string{err.Error()}}
	}
	switch {
	case step.Step == stage.StepExec && errors.Is(step.Err, syscall.ENOENT):
		return &CommandError{Code: CodeNotFound, Err: fmt.Errorf("%s: not found, or its interpreter or loader is not", step.Path)}
	case step.Step == stage.StepExec:
		return &CommandError{Code: CodeNotExecutable, Err: fmt.Errorf("%s: %w", step.Path, step.Err), Hint: s.execHint(step)}
	case step.Step == stage.StepDir:
		return &SetupError{[]string{fmt.Sprintf("start: change directory to %s: %v", s.startDir, step.Err)}}
	case step.Step == stage.StepSeccomp && errors.Is(step.Err, syscall.EBUSY):
		return &SetupError{[]string{"seccomp: " + kernel.ErrListenerBusy.Error()}}
	}
	return &SetupError{[]string{"start: " + err.Error()}}
}

// execHint explains a refused execve where the policy is the reason.
func (s *sandbox) execHint(step *stage.StepError) string {
	if s.program.HeldEvents()&ir.EventExec != 0 {
		return "a dynamic rule of the policy may have refused it: with --audit - the line of its execve says which"
	}
	fd, real, err := s.openProgram(step.Path)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	at := kernel.Pin{FD: fd}.SelfPath()
	if errors.Is(step.Err, syscall.EPERM) {
		if _, err := unix.Getxattr(at, "security.capability", nil); err == nil {
			return "the file brings capabilities (getcap shows them), and the kernel does not start it without them: keep them " +
				"(program.capabilities), start as another user than root, or start a copy, which has none"
		}
	}
	if !errors.Is(step.Err, syscall.EACCES) {
		return ""
	}
	if r, _, refused := s.coveredFor(real, execRight); refused {
		rule, origin := s.describeAt(r)
		hint := real + " is " + r.Reason + ": " + rule
		if origin != "" {
			hint += " (" + origin + ")"
		}
		return hint
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o111 == 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "the file is not executable"
	}
	s.resolveGrants()
	if ok, rule, origin := s.grants(real, execRight); !ok {
		return notGranted(real, "execute", rule, origin)
	}
	return "the file is granted; its interpreter or loader may not be"
}

// openProgram opens the file that was to be started (O_PATH), and returns where it is.
func (s *sandbox) openProgram(path string) (fd int, real string, err error) {
	if !s.root.Own() && !filepath.IsAbs(path) {
		return -1, "", unix.ENOENT
	}
	if fd, err = s.root.Open(path, unix.O_PATH|unix.O_CLOEXEC); err != nil {
		return -1, "", err
	}
	if real, err = s.root.Where(fd); err != nil {
		_ = unix.Close(fd)
	}
	return fd, real, err
}
