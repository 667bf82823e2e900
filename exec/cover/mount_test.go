package cover

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// These tests mount what a plan says in a mount namespace and attack it from there. There is no Landlock around: mounts alone
// have to hold.

func init() {
	children["sandbox"] = sandboxChild
	// mv(1) copies what it may not rename, and removes what it can of the source.
	children["rename"] = func(args []string) {
		if err := unix.Rename(args[0], args[1]); err != nil {
			os.Exit(1)
		}
	}
}

// order is what the test tells the child to do.
type order struct {
	Covers  []Cover
	Removal [][]Call
	FDs     []int  // numbers that the descriptors sent along have in Removal
	Nodes   string // directory to mount the inaccessible nodes in
	Script  string
}

// sandboxChild runs in a new user and mount namespace, with CAP_SYS_ADMIN as its only capability.
func sandboxChild([]string) {
	runtime.LockOSThread() // ambient capabilities are the thread's
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	file := os.NewFile(3, "")
	conn, err := net.FileConn(file)
	must(err)
	_, err = conn.Write([]byte("ready\n"))
	must(err)
	var o order
	buf, oob := make([]byte, 1<<20), make([]byte, 4096)
	n, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(buf, oob)
	must(err)
	must(json.Unmarshal(buf[:n], &o))
	numbers := map[uintptr]uintptr{}
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		must(err)
		fds, err := unix.ParseUnixRights(&messages[0])
		must(err)
		for i, fd := range fds {
			numbers[uintptr(o.FDs[i])] = uintptr(fd)
			unix.CloseOnExec(fd)
		}
	}
	o.mount()
	must(unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
	cmd := exec.Command("/bin/sh", "-c", o.Script)
	text, err := cmd.CombinedOutput()
	if err != nil {
		text = append(text, err.Error()...)
	}
	if o.Script == "crash" {
		must(unix.Kill(os.Getpid(), unix.SIGKILL))
	}
	for _, group := range o.Removal {
		for _, c := range group {
			if c.NR != unix.SYS_UMOUNT2 {
				c.Args[0] = numbers[c.Args[0]]
			}
			if len(c.Text) > 0 {
				c.Args[c.TextArg] = uintptr(unsafe.Pointer(&c.Text[0]))
			}
			if r, _, errno := unix.Syscall6(c.NR, c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5]); r != 0 {
				if errno != 0 && errors.Is(errno, unix.EBUSY) {
					text = append(text, "removal: "+errno.Error()+"\n"...) // a bug: something is mounted there still
				}
				break
			}
			runtime.KeepAlive(c.Text)
		}
	}
	_, err = conn.Write(append(text, "end\n"...))
	must(err)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (o order) mount() {
	must(unix.Mount("nodes", o.Nodes, "tmpfs", 0, "mode=755"))
	file, dir := filepath.Join(o.Nodes, "f"), filepath.Join(o.Nodes, "d")
	must(os.WriteFile(file, nil, 0))
	must(os.Mkdir(dir, 0))
	// Their owner is the command's user: on a writable mount he could open them up by chmod.
	must(unix.MountSetattr(unix.AT_FDCWD, o.Nodes, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
	for _, c := range o.Covers {
		if c.Link {
			tree, err := unix.OpenTree(unix.AT_FDCWD, c.Path, unix.OPEN_TREE_CLONE|unix.AT_SYMLINK_NOFOLLOW|unix.OPEN_TREE_CLOEXEC)
			must(err)
			must(unix.MoveMount(tree, "", unix.AT_FDCWD, c.Path, unix.MOVE_MOUNT_F_EMPTY_PATH))
			must(unix.Close(tree))
			continue
		}
		source, flags := c.Path, uintptr(unix.MS_BIND|unix.MS_REC)
		if c.Kind == Closed {
			if source, flags = file, unix.MS_BIND; c.Dir {
				source = dir
			}
		}
		if err := unix.Mount(source, c.Path, "", flags, ""); err != nil {
			panic(fmt.Sprintf("%v: %v", c, err))
		}
		if c.Kind == ReadOnly {
			must(unix.MountSetattr(unix.AT_FDCWD, c.Path, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
		}
	}
}

// box is a process in namespaces of its own.
type box struct {
	cmd  *exec.Cmd
	conn *net.UnixConn
	in   *bufio.Reader
	root kernel.Root
}

func newBox(t *testing.T) *box {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), ""), os.NewFile(uintptr(pair[1]), "")
	conn, err := net.FileConn(ours)
	check(t, err)
	ours.Close()
	b := &box{cmd: exec.Command("/proc/self/exe"), conn: conn.(*net.UnixConn), in: bufio.NewReader(conn)}
	b.cmd.Env = append(os.Environ(), childVariable+"=sandbox")
	b.cmd.ExtraFiles = []*os.File{theirs}
	b.cmd.Stderr = os.Stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
		// Not root in there, so that programs executed have no capabilities.
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
	err = b.cmd.Start()
	theirs.Close()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("no user namespaces here: %v", err)
	}
	check(t, err)
	t.Cleanup(func() {
		b.conn.Close()
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
	})
	if line, err := b.in.ReadString('\n'); line != "ready\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", b.cmd.Process.Pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	check(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	b.root = kernel.NewRoot(fd)
	return b
}

// start makes the plan from outside, mounts it inside, and starts the script.
func (b *box) start(t *testing.T, r Request, script string) *Plan {
	t.Helper()
	r.Root = b.root
	p, err := Make(r)
	check(t, err)
	nodes := t.TempDir()
	text, err := json.Marshal(order{p.Covers, p.Removal(), p.Descriptors(), nodes, script})
	check(t, err)
	_, _, err = b.conn.WriteMsgUnix(text, unix.UnixRights(p.Descriptors()...), nil)
	check(t, err)
	return p
}

// end waits for the child to have removed the placeholders.
func (b *box) end(t *testing.T) (lines []string) {
	t.Helper()
	for {
		line, err := b.in.ReadString('\n')
		if line == "end\n" {
			return lines
		}
		if err != nil {
			t.Fatalf("child: %q, %v", lines, err)
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
}

// attempts turns commands into a script that says which ones work.
func attempts(program, dir string, commands []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cd %s || exit\nrename() { %s=rename %s \"$@\"; }\n", dir, childVariable, program)
	for _, c := range commands {
		fmt.Fprintf(&b, "if ( %s ) >/dev/null 2>&1; then echo '%s'; fi\n", c, c)
	}
	return b.String()
}

func TestMounted(t *testing.T) {
	asUsers(t, func(t *testing.T) {
		dir := tree(t, "w/secret", "w/alias = w/secret", "w/link -> secret", "w/link2 -> link", "w/planted", "w/planted2", "w/.git/hooks/pre", "w/.git/config", "w/d/inner/key", "w/d/inner/other",
			"w/shut/s", "w/out = w/shut/s", "w/worktree/.git", "w/p.pem", "w/q = w/p.pem", "r/a", "w/sub/.git/config")
		before := listing(t, dir)
		refused := []string{
			"cat secret", "cat alias", "cat link", "cat link2", "cat ./d/../secret", "cat /proc/self/cwd/secret", "ln secret copy && cat copy", "ln alias copy && cat copy",
			"rename secret x", "rename alias x", "rename planted secret", "rm -f secret", "echo x > secret", ": > alias", "chmod 644 secret", "truncate -s 0 secret",
			"ln -f planted secret", "ln -sf secret link && cat link", "touch secret/x", "rmdir shut", "ls shut", "cat shut/s", "cat out", "rename shut x", "chmod 755 shut",
			"rename d x", "rename d/inner x", "rename d/inner/key x", "mv d/inner/key x", "cat d/inner/key", "rmdir d/inner", "rename planted2 d/inner/key", "mv -T planted2 d/inner/key",
			"mkdir none", "echo x > none", "ln -s /etc none", "rename planted none", "rm -f none", "mkfifo none", "ln planted none", "cat none", "rm -rf deep", "rename deep x", "rename deep/er x", "mkdir deep/er/none",
			"echo evil > .git/hooks/pre", "echo evil > .git/hooks/new", "rm -f .git/hooks/pre", "rename .git x", "rename .git/hooks x", "chmod 777 .git/hooks", "chmod 777 .git/hooks/pre", "mv planted .git/hooks/", "rename planted .git/hooks/pre",
			"mkdir -p sub/.git/hooks/x", "rename sub x", "rename sub/.git x", "echo x > sub/.git/hooks", "rm -f worktree/.git", "rename worktree x", "rename worktree/.git x",
			"echo x > p.pem", "echo x > q", "rm -f p.pem", "touch p.pem", "mkdir -p .venv/bin/x", "echo x > .venv/bin",
		}
		allowed := []string{
			"cat planted", "echo ok > new", "ln new new2 && cat new2", "rename new2 new3", "rm new new3", "echo ok > .git/config", "mkdir -p e/f && mv planted2 e/ && mv e/planted2 . && rmdir e/f e",
			"cat .git/hooks/pre", "cat d/inner/other", "cp d/inner/other d/inner/o2 && rm d/inner/o2", "echo x >> worktree/.git", "cat p.pem", "cat q",
		}
		b := newBox(t)
		request := Request{
			Grants:  []Grant{{dir + "/w", true}, {dir + "/r", false}},
			Deny:    rules("deny", dir+"/w/secret", dir+"/w/d/inner/key", dir+"/w/shut", dir+"/w/none", dir+"/w/deep/er/none", dir+"/r/none"),
			Protect: rules("protect", "**/.git/hooks/**", "*.pem", ".venv/bin"),
		}
		p := b.start(t, request, attempts(self(t), dir+"/w", slices.Concat(refused, allowed)))
		p.Close() // the child has its own
		same(t, b.end(t), allowed)
		same(t, listing(t, dir), before)
		// The positive control: without the mounts all of it works, one or the other way.
		for _, command := range []string{"cat secret", "mv .git x && mv x .git", "mkdir none && rmdir none"} {
			if text, err := exec.Command("/bin/sh", "-c", "cd "+dir+"/w && "+command).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, text)
			}
		}
	})
}

// TestRemoval: what the init process removes at the end, by system calls alone.
func TestRemoval(t *testing.T) {
	asUsers(t, func(t *testing.T) {
		for _, tc := range []struct {
			name     string
			outside  string // done on the host while the sandbox runs
			inside   string
			want     []string
			crash    bool
			deny     []string
			adoption bool // another run follows
		}{
			{name: "nothing happened", deny: []string{"x", "a/b/x", "a/y"}},
			{name: "written to", deny: []string{"a/x"}, outside: "chmod 644 a/x; echo mine > a/x", want: []string{"a", "a/x"}},
			{name: "replaced", deny: []string{"a/x", "y"}, outside: "touch new && mv new a/x", want: []string{"a", "a/x"}},
			{name: "replaced by a directory", deny: []string{"a/x"}, outside: "rm -f a/x && mkdir a/x", want: []string{"a", "a/x"}},
			{name: "removed", deny: []string{"a/x"}, outside: "rm -f a/x"},
			{name: "directory used", deny: []string{"a/b/x"}, inside: "echo x > a/file", want: []string{"a", "a/file"}},
			{name: "directory replaced", deny: []string{"a/x"}, outside: "mv a b && mkdir a", want: []string{"a", "b", "b/x"}},
			{name: "killed", deny: []string{"a/x", "y"}, crash: true, want: []string{"a", "a/x", "y"}},
			{name: "killed and followed", deny: []string{"a/x", "y"}, crash: true, adoption: true},
		} {
			t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) {
				dir := tree(t)
				b := newBox(t)
				script := "cd " + dir + " && " + ": > mounted; while [ ! -e go ]; do sleep 0.01; done; rm go mounted; true; " + tc.inside
				if tc.crash {
					script = "crash"
				}
				p := b.start(t, deniedRequest(dir, tc.deny...), script)
				p.Close()
				for !tc.crash { // what is done outside is done to mount points
					if _, err := os.Stat(dir + "/mounted"); err == nil {
						break
					}
					time.Sleep(time.Millisecond)
				}
				if tc.outside != "" {
					if text, err := exec.Command("/bin/sh", "-c", "cd "+dir+" && { "+tc.outside+"; }").CombinedOutput(); err != nil {
						t.Fatalf("%v: %s", err, text)
					}
				}
				if tc.crash {
					_ = b.cmd.Wait()
				} else {
					check(t, os.WriteFile(dir+"/go", nil, 0o644))
					same(t, b.end(t), nil)
				}
				if tc.adoption {
					b := newBox(t)
					b.start(t, deniedRequest(dir, tc.deny...), "true").Close()
					same(t, b.end(t), nil)
				}
				same(t, listing(t, dir), tc.want)
			})
		}
	})
}

// TestRemovalShared: of two sandboxes at once the last removes, in either order of end.
func TestRemovalShared(t *testing.T) {
	asUsers(t, func(t *testing.T) {
		for _, order := range [][2]int{{0, 1}, {1, 0}} {
			dir := tree(t, "go0", "go1")
			var boxes [2]*box
			for i := range boxes {
				boxes[i] = newBox(t)
				script := fmt.Sprintf("cd %s; while [ -e go%d ]; do sleep 0.01; done", dir, i)
				boxes[i].start(t, deniedRequest(dir, "a/x", fmt.Sprintf("a/y%d", i)), script).Close()
			}
			same(t, listing(t, dir), []string{"a", "a/x", "a/y0", "a/y1", "go0", "go1"})
			first, second := order[0], order[1]
			check(t, os.Remove(fmt.Sprintf("%s/go%d", dir, first)))
			same(t, boxes[first].end(t), nil)
			same(t, listing(t, dir), []string{"a", "a/x", fmt.Sprintf("a/y%d", second), fmt.Sprintf("go%d", second)})
			check(t, os.Remove(fmt.Sprintf("%s/go%d", dir, second)))
			same(t, boxes[second].end(t), nil)
			same(t, listing(t, dir), nil)
		}
	})
}
