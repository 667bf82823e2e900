package exectest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Nobody is the ordinary user that tests run as when they are started as root.
const Nobody = 65534

// User is who a command runs as.
type User struct{ UID, GID int }

// Root tells whether u is the superuser.
func (u User) Root() bool { return u.UID == 0 }

// Self is the user that the tests run as.
func Self() User { return User{os.Getuid(), os.Getgid()} }

// Ordinary is a user who is not root: the current one, or Nobody.
func Ordinary() User {
	if u := Self(); !u.Root() {
		return u
	}
	return User{Nobody, Nobody}
}

// Lacks skips a test that needs what scripts/setup.sh installs and this host lacks. It fails the test if
// SANDLOCK_TEST_ALL is set, as CI does: there a skip would hide that the test no longer runs.
func Lacks(tb testing.TB, what any) {
	tb.Helper()
	if os.Getenv("SANDLOCK_TEST_ALL") != "" {
		tb.Fatalf("scripts/setup.sh should have installed: %v", what)
	}
	tb.Skipf("not installed: %v", what)
}

// Program is path, if there is a file; else the host [Lacks] it.
func Program(tb testing.TB, path string) string {
	tb.Helper()
	if _, err := os.Stat(path); err != nil {
		Lacks(tb, err)
	}
	return path
}

// AsUsers runs a test as root and as an ordinary user without groups, or as the current user only where that is
// not root.
func AsUsers(t *testing.T, test func(t *testing.T, u User)) {
	t.Helper()
	if !Self().Root() {
		t.Run(fmt.Sprintf("uid%d", os.Getuid()), func(t *testing.T) { test(t, Self()) })
		return
	}
	t.Run("root", func(t *testing.T) { test(t, User{}) })
	t.Run(fmt.Sprintf("uid%d", Nobody), func(t *testing.T) { test(t, Ordinary()) })
}

// InParallel runs a test beside others, and as both users at a time. It is for tests that a [Box] is all of: they share no
// port, no listener and no state of this process, and do not mind how busy the machine is.
func InParallel(t *testing.T, test func(t *testing.T, u User)) {
	t.Helper()
	t.Parallel()
	AsUsers(t, func(t *testing.T, u User) {
		t.Parallel()
		test(t, u)
	})
}

// Box is the setting of one test: a user, a folder that policies grant writing to, and one that they grant nothing in.
type Box struct {
	User    User
	Probe   string // the program that makes attempts
	Work    string // granted for writing by [Box.Base]; also HOME
	Outside string // granted by nothing
	root    string
	tb      testing.TB
	sealed  *atomic.Int32 // counts policies, for their file names
}

// NewBox makes the folders and removes them at the test's end.
func NewBox(tb testing.TB, u User) *Box {
	tb.Helper()
	probe := Probe(tb)
	root, err := os.MkdirTemp(scratch, "box-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(root) })
	b := &Box{User: u, Probe: probe, root: root, tb: tb, sealed: new(atomic.Int32)}
	b.check(os.Chmod(root, 0o755))
	b.Work, b.Outside = b.mkdir("work"), b.mkdir("outside")
	return b
}

// In returns the same box for a subtest, which then is what fails.
func (b *Box) In(tb testing.TB) *Box {
	sub := *b
	sub.tb = tb
	return &sub
}

func (b *Box) check(err error) {
	b.tb.Helper()
	if err != nil {
		b.tb.Fatal(err)
	}
}

func (b *Box) mkdir(name string) string {
	b.tb.Helper()
	dir := filepath.Join(b.root, name)
	b.check(os.Mkdir(dir, 0o755))
	b.own(dir)
	return dir
}

func (b *Box) own(path string) {
	b.tb.Helper()
	if Self().Root() {
		b.check(os.Lchown(path, b.User.UID, b.User.GID))
	}
}

// Dir makes another folder that belongs to the user, beside Work and Outside.
func (b *Box) Dir(name string) string {
	b.tb.Helper()
	return b.mkdir(name)
}

// File writes a file that belongs to the user.
func (b *Box) File(path, content string) string {
	b.tb.Helper()
	b.check(writeFile(path, content))
	b.own(path)
	return path
}

// writeFile writes a file that may be a program. While a test beside this one starts a process, that would inherit the
// descriptor until it executes its own program, and the file could not be executed meanwhile (ETXTBSY).
func writeFile(path, content string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(content), 0o644)
}

// Link makes a symbolic link that belongs to the user.
func (b *Box) Link(target, path string) string {
	b.tb.Helper()
	b.check(os.Symlink(target, path))
	b.own(path)
	return path
}

// Grants is what a policy adds to policy B.
type Grants struct {
	Read  []string // further paths, beneath which may be read and executed
	Write []string // further paths, beneath which everything may be done
	More  string   // further CUE text
}

// Base is policy B: the system's programs and settings may be read, Work may be written, nothing else.
func (b *Box) Base(g Grants) string {
	read := append([]string{"/usr", "/lib", "/bin", "/etc", "/dev", filepath.Dir(b.Probe)}, g.Read...)
	write := append([]string{b.Work}, g.Write...)
	var text strings.Builder
	fmt.Fprintf(&text, "filesystem: {\n\tread: [\n\t\t{path: \"/lib64\", optional: true},\n")
	for _, path := range read {
		fmt.Fprintf(&text, "\t\t%q,\n", path)
	}
	fmt.Fprintf(&text, "\t]\n\twrite: [\n")
	for _, path := range write {
		fmt.Fprintf(&text, "\t\t%q,\n", path)
	}
	fmt.Fprintf(&text, "\t]\n}\n%s\n", g.More)
	return text.String()
}

// Compile runs sandlock-compile on policy text and returns its result and the artifact's path.
func (b *Box) Compile(policy string) (Result, string) {
	b.tb.Helper()
	source := filepath.Join(b.root, fmt.Sprintf("policy%d.cue", b.sealed.Add(1)))
	artifact := strings.TrimSuffix(source, ".cue") + ".sbx"
	b.check(os.WriteFile(source, []byte(policy), 0o644))
	r := Run(b.tb, Opts{User: Self(), Args: []string{Compiler(b.tb), source, "-o", artifact}, Dir: b.root})
	if r.Code == 0 {
		b.check(os.Chmod(artifact, 0o644))
	}
	return r, artifact
}

// Policy compiles policy text that must be right, and returns the artifact's path.
func (b *Box) Policy(policy string) string {
	b.tb.Helper()
	r, artifact := b.Compile(policy)
	if r.Code != 0 {
		b.tb.Fatalf("compile: exit %d\n%s\npolicy:\n%s", r.Code, r.Stderr, policy)
	}
	return artifact
}

// Opts returns the options of a run of args under an artifact.
func (b *Box) Opts(artifact string, args ...string) Opts {
	return Opts{
		User: b.User, Policy: artifact, Args: args, Dir: b.Work,
		Env: []string{"PATH=/usr/bin:/bin", "HOME=" + b.Work, "LANG=C"},
	}
}

// Run runs args under an artifact.
func (b *Box) Run(artifact string, args ...string) Result {
	b.tb.Helper()
	return Run(b.tb, b.Opts(artifact, args...))
}

// Sh runs a shell script under an artifact.
func (b *Box) Sh(artifact, script string) Result {
	b.tb.Helper()
	return b.Run(artifact, "/bin/sh", "-c", script)
}

// Attempt runs the probe under an artifact and returns the line that it printed; "signal N" where the attempt ended it.
func (b *Box) Attempt(artifact string, args ...string) string {
	b.tb.Helper()
	return b.probe(b.Opts(artifact, append([]string{b.Probe}, args...)...))
}

// Control makes the same attempt as the same user with no sandbox around it.
func (b *Box) Control(args ...string) string {
	b.tb.Helper()
	o := b.Opts("", append([]string{b.Probe}, args...)...)
	o.PrivateMounts = true
	return b.probe(o)
}

// RootControl makes the same attempt as root with no sandbox, or skips the test where the tests do not run as root.
func (b *Box) RootControl(args ...string) string {
	b.tb.Helper()
	if !Self().Root() {
		b.tb.Skip("the positive control needs root")
	}
	o := b.Opts("", append([]string{b.Probe}, args...)...)
	o.User, o.PrivateMounts = User{}, true
	return b.probe(o)
}

func (b *Box) probe(o Opts) string {
	b.tb.Helper()
	r := Run(b.tb, o)
	if r.Code > 128 {
		return fmt.Sprintf("signal %d", r.Code-128)
	}
	line := strings.TrimSpace(r.Stdout)
	if r.Code != 0 || line == "" {
		b.tb.Fatalf("%s: exit %d, stdout %q, stderr:\n%s", strings.Join(o.Args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return line
}

// Within polls until done, and fails the test when that takes longer than limit.
func Within(tb testing.TB, limit time.Duration, what string, done func() bool) {
	tb.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("not within %v: %s", limit, what)
		}
	}
}
