package rules

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

type notes []supervise.Event

func (n *notes) Record(e supervise.Event) { *n = append(*n, e) }

// child makes a process below parent as state knows it.
func (s *state) child(parent *process) *process {
	p := &process{parent: parent, counts: map[int]uint64{}}
	for rule, n := range parent.counts {
		p.counts[rule] = n
	}
	return p
}

func TestChangesBindDescendants(t *testing.T) {
	s := newState(1, nil)
	root := &process{counts: map[int]uint64{}}
	a, b := s.child(root), s.child(root)
	early := s.child(a)
	s.apply(a, 3, ir.ScopeProcess)
	late := s.child(a)
	grandchild := s.child(late)
	lost := &process{unknown: true}
	s.apply(b, 5, ir.ScopeSandbox)
	for name, tc := range map[string]struct {
		p    *process
		want ruleSet
	}{
		"the process":                 {a, 1<<3 | 1<<5},
		"a child from before":         {early, 1<<3 | 1<<5},
		"a child from after":          {late, 1<<3 | 1<<5},
		"a grandchild":                {grandchild, 1<<3 | 1<<5},
		"a sibling":                   {b, 1 << 5},
		"the parent":                  {root, 1 << 5},
		"one without a known descent": {lost, 1<<3 | 1<<5},
	} {
		if got := s.applied(tc.p); got != tc.want {
			t.Errorf("%s: rules %b, want %b", name, got, tc.want)
		}
	}
	// What an ancestor has met outlives it, and the ancestor itself is forgotten.
	a.exited, late.exited = true, true
	if got := s.applied(grandchild); got != 1<<3|1<<5 || grandchild.parent != root {
		t.Errorf("after its ancestors' exit: rules %b, parent %p", got, grandchild.parent)
	}
}

func TestDescentThatCannotBeKnown(t *testing.T) {
	s := newState(10, nil)
	s.parent = func(int) (int, error) { return s.self, nil }
	s.highest[2] = 7
	p := s.of(&supervise.Process{PID: 20})
	if !p.unknown || p.counts[2] != 7 {
		t.Errorf("a child of the executor: %+v, want an unknown descent and the highest count", p)
	}
	if c := s.of(&supervise.Process{PID: 10}); c.unknown {
		t.Error("the command itself has an unknown descent")
	}
}

func TestCountsByScope(t *testing.T) {
	s := newState(1, nil)
	p := &process{counts: map[int]uint64{}}
	s.count(p, 0, ir.ScopeProcess, true)
	s.count(p, 0, ir.ScopeProcess, true)
	c := s.child(p)
	if got := s.count(c, 0, ir.ScopeProcess, true); got != 3 {
		t.Errorf("a child counts %d, want 3: it goes on from its parent", got)
	}
	if got := s.count(p, 0, ir.ScopeProcess, false); got != 2 {
		t.Errorf("the parent counts %d, want 2", got)
	}
	s.count(p, 1, ir.ScopeSandbox, true)
	if got := s.count(c, 1, ir.ScopeSandbox, true); got != 2 {
		t.Errorf("the sandbox counts %d, want 2", got)
	}
}

func TestHook(t *testing.T) {
	for name, tc := range map[string]struct {
		f    Hook
		want ir.Outcome
	}{
		"none":    {nil, ir.Outcome{}},
		"allows":  {func(Event) ir.Outcome { return ir.Outcome{Kind: ir.OutcomeAllow} }, ir.Outcome{Kind: ir.OutcomeAllow}},
		"refuses": {func(Event) ir.Outcome { return errnoOutcome(unix.ENOENT) }, errnoOutcome(unix.ENOENT)},
		"panics":  {func(Event) ir.Outcome { panic("oops") }, errnoOutcome(unix.EPERM)},
	} {
		h := hook{f: tc.f, limit: HookTime}
		if got := h.ask(Event{}); got != tc.want {
			t.Errorf("a hook that %s: %v, want %v", name, got, tc.want)
		}
	}
}

// A hook that hangs refuses, and while it hangs everything else is refused without waiting.
func TestHookThatHangs(t *testing.T) {
	var asked atomic.Int32
	release := make(chan struct{})
	h := hook{limit: time.Millisecond}
	h.f = func(Event) ir.Outcome {
		asked.Add(1)
		<-release
		return ir.Outcome{}
	}
	for range 3 {
		if got := h.ask(Event{}); got != errnoOutcome(unix.EPERM) {
			t.Errorf("got %v, want EPERM", got)
		}
	}
	if n := asked.Load(); n > 1 {
		t.Errorf("asked %d times, want once", n)
	}
	close(release)
}

// vector lays out an argument vector as execve takes it.
func vector(args ...string) []byte {
	texts := 8 * (len(args) + 1)
	b := make([]byte, texts)
	for i, a := range args {
		binary.NativeEndian.PutUint64(b[8*i:], uint64(supervisetest.Base+len(b)))
		b = append(append(b, a...), 0)
	}
	return b
}

func TestArguments(t *testing.T) {
	many := slices.Repeat([]string{"x"}, 200)
	long := strings.Repeat("y", 5000)
	for name, tc := range map[string]struct {
		memory []byte
		want   []string
		fails  bool
	}{
		"plain":        {vector("echo", "a b", ""), []string{"echo", "a b", ""}, false},
		"none":         {vector(), nil, false},
		"many":         {vector(many...), many[:maxArgs], false},
		"long":         {vector("a", long, "b"), []string{"a", long[:4096], "b"}, false},
		"unterminated": {vector("a", "b")[:16], nil, true},
		"bad pointer":  {[]byte{1, 2, 3, 4, 5, 6, 7, 8}, nil, true},
	} {
		c := supervise.NewCall(1, 59, [6]uint64{}, &supervisetest.Memory{Bytes: tc.memory})
		got, err := arguments(c, supervisetest.Base)
		if (err != nil) != tc.fails || !tc.fails && !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %.60q, %v", name, got, err)
		}
	}
}

// newHandler makes a handler for a process of this test, without a loop.
func newHandler(t *testing.T, p Policy) (*Handler, *notes) {
	t.Helper()
	j := &notes{}
	p.Name, p.Where, p.Audited = func(int) string { return "rules[0]" }, func(int) string { return "p.cue:1:1" }, true
	if p.Grants == nil {
		p.Grants = func(string, uint64) (bool, string, string) { return true, "", "" }
	}
	h, err := New(abi.AMD64, p, os.Getpid(), nil, nil, j)
	if err != nil {
		t.Fatal(err)
	}
	return h, j
}

// handle hands a call with one path to the handler as this process's own.
func handle(h *Handler, name, path string, args ...uint64) supervise.Verdict {
	nr, _ := abi.SyscallNumber(abi.AMD64, name)
	c := supervise.NewCall(os.Getpid(), nr, [6]uint64{supervisetest.Base}, &supervisetest.Memory{Bytes: append([]byte(path), 0)})
	copy(c.Args[1:], args)
	p := &supervise.Process{PID: os.Getpid()}
	w := &held{call: c, spec: h.calls[nr], process: p, who: h.state.of(p)}
	w.facts.Kind = w.spec.event
	return h.file(w)
}

func TestFilesAreDecidedBeforeAnyEffect(t *testing.T) {
	dir := t.TempDir()
	closed := ir.DynamicRule{On: ir.EventFile, Path: dir + "/closed", Then: errnoOutcome(unix.ENOENT), Scope: ir.ScopeSandbox}
	h, j := newHandler(t, Policy{Rules: []ir.DynamicRule{closed}, Held: ir.EventFile})
	for _, tc := range []struct {
		call, path, want string
		args             []uint64
		made             bool
	}{
		{"open", dir + "/closed", "errno ENOENT", []uint64{unix.O_CREAT | unix.O_WRONLY, 0o600}, false},
		{"mkdir", dir + "/closed", "errno ENOENT", []uint64{0o700}, false},
		{"mkdir", dir + "/open", "return 0", []uint64{0o700}, true},
		{"open", dir + "/new", "descriptor with flags 0x80000", []uint64{unix.O_CREAT | unix.O_CLOEXEC | unix.O_WRONLY, 0o600}, true},
		{"open", dir + "/new", "errno EEXIST", []uint64{unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY, 0o600}, true},
		{"open", dir + "/open", "errno EISDIR", []uint64{unix.O_CREAT | unix.O_WRONLY, 0o600}, true},
		{"open", dir + "/new/", "errno ENOTDIR", []uint64{unix.O_RDONLY}, false},
		{"open", dir + "/missing", "errno ENOENT", []uint64{unix.O_RDONLY}, false},
		{"open", "", "errno ENOENT", []uint64{unix.O_RDONLY}, true},
		{"rmdir", dir + "/open", "return 0", nil, false},
		{"unlink", dir + "/new", "return 0", nil, false},
	} {
		if got := handle(h, tc.call, tc.path, tc.args...).String(); got != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.call, tc.path, got, tc.want)
		}
		if _, err := os.Lstat(tc.path); tc.path != "" && (err == nil) != tc.made {
			t.Errorf("%s %s: exists: %v, want %v", tc.call, tc.path, err == nil, tc.made)
		}
	}
	if first := (*j)[0]; first.Kind != "denied" || first.Rule != "rules[0]" || first.Path != dir+"/closed" || first.Verdict != "ENOENT" {
		t.Errorf("journal %+v", first)
	}
}

func TestStaticPolicyHolds(t *testing.T) {
	dir := t.TempDir()
	none := func(string, uint64) (bool, string, string) { return false, "filesystem.read[0]", "p.cue:2:2" }
	rule := ir.DynamicRule{On: ir.EventFile, Path: dir + "/*", Then: ir.Outcome{Kind: ir.OutcomeAllow}, Scope: ir.ScopeSandbox}
	h, _ := newHandler(t, Policy{Rules: []ir.DynamicRule{rule}, Held: ir.EventFile, Grants: none})
	if got := handle(h, "mkdir", dir+"/new", 0o700).String(); got != "errno EACCES" {
		t.Errorf("mkdir without a grant: %s, want EACCES", got)
	}
}

// An open that would block waits, and is carried out when what it waits for is there.
func TestOpenThatWouldBlockWaits(t *testing.T) {
	const fifo, file = "/fifo", "/file"
	other := func(path string, flags int) int {
		fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		return fd
	}
	reader := func(path string) int { return other(path, unix.O_RDONLY) }
	writer := func(path string) int { return other(path, unix.O_WRONLY) }
	both := func(path string) int { return other(path, unix.O_RDWR) }
	lease := func(path string) int {
		fd := reader(path)
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
			t.Error(err)
		}
		return fd
	}
	nobody := func(string) int { return -1 }
	const descriptor = "descriptor with flags 0x0"
	for _, tc := range []struct {
		name, call, path string
		flags            uint64
		before           func(path string) int // opens what is there when the call is made
		then             func(path string) int // opens what comes after it; what is there is closed
		first, last      string
	}{
		{"reader, then a writer", "open", fifo, unix.O_RDONLY, nobody, writer, "wait", descriptor},
		{"reader, then nobody", "open", fifo, unix.O_RDONLY, nobody, nobody, "wait", "wait"},
		{"writer, then a reader", "open", fifo, unix.O_WRONLY, nobody, reader, "wait", descriptor},
		{"writer, then nobody", "open", fifo, unix.O_WRONLY, nobody, nobody, "wait", "wait"},
		{"reader beside a writer", "open", fifo, unix.O_RDONLY, both, nil, descriptor, ""},
		{"writer that will not wait", "open", fifo, unix.O_WRONLY | unix.O_NONBLOCK, nobody, nil, "errno ENXIO", ""},
		{"reader that will not wait", "open", fifo, unix.O_RDONLY | unix.O_NONBLOCK, nobody, nil, descriptor, ""},
		{"both in one", "open", fifo, unix.O_RDWR, nobody, nil, descriptor, ""},
		{"lease", "open", file, unix.O_WRONLY, lease, nobody, "wait", descriptor},
		{"lease, truncate", "truncate", file, 2, lease, nobody, "wait", "return 0"},
		{"lease, open that will not wait", "open", file, unix.O_WRONLY | unix.O_NONBLOCK, lease, nil, "errno EAGAIN", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mkfifo(dir+fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+file, []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
			rule := ir.DynamicRule{On: ir.EventFile, Path: dir + "/x", Then: ir.Outcome{Kind: ir.OutcomeAllow}, Scope: ir.ScopeSandbox}
			h, _ := newHandler(t, Policy{Rules: []ir.DynamicRule{rule}, Held: ir.EventFile})
			before := tc.before(dir + tc.path)
			v := handle(h, tc.call, dir+tc.path, tc.flags)
			_ = unix.Close(before)
			if got := v.String(); got != tc.first {
				t.Fatalf("%s, want %s", got, tc.first)
			}
			if tc.then == nil {
				return
			}
			after := tc.then(dir + tc.path)
			if v = v.Waited()(nil, false); v.String() != tc.last {
				t.Errorf("then %s, want %s", v, tc.last)
			}
			_ = unix.Close(after)
		})
	}
}

// A hook is asked off the loop about files, before anything happens to them.
func TestHookIsAskedAboutFiles(t *testing.T) {
	dir := t.TempDir()
	seen := make(chan Event, 1)
	hook := func(e Event) ir.Outcome {
		if _, err := os.Lstat(e.Paths[0]); err == nil {
			t.Errorf("%s is there before the hook has answered", e.Paths[0])
		}
		seen <- e
		return errnoOutcome(unix.ENOENT)
	}
	h, _ := newHandler(t, Policy{Rules: []ir.DynamicRule{{On: ir.EventMake, Then: ir.Outcome{Kind: ir.OutcomeAllow}, Scope: ir.ScopeSandbox}}, Held: ir.EventMake, Hook: hook})
	v := handle(h, "mkdir", dir+"/new", 0o700)
	if !v.Defers() {
		t.Fatalf("%v, want that it is deferred", v)
	}
	if got := v.Deferred()(t.Context()).String(); got != "errno ENOENT" {
		t.Errorf("%s, want what the hook said", got)
	}
	if e := <-seen; e.Syscall != "mkdir" || e.Kind != ir.EventMake || e.PID != os.Getpid() || e.Rule != 0 {
		t.Errorf("event %+v", e)
	}
}

func TestTargetsFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"/a", "/b"} {
		if err := os.WriteFile(dir+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir+"/a", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	list := newTargets(kernel.Root{}, []ir.DynamicRule{{Exe: dir + "/link"}, {Path: "**/pattern"}, {Do: []ir.Change{{Kind: ir.ChangeDenyPath, Path: dir + "/later"}}}})
	if len(list) != 2 {
		t.Fatalf("%d targets, want 2: a pattern is none", len(list))
	}
	if err := os.Link(dir+"/a", dir+"/hard"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/a": true, "/hard": true, "/b": false} {
		pin, err := (kernel.Root{}).Resolve(kernel.Base{DirFD: kernel.AtCWD}, dir+path, true, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(list.describe(pin).Also, dir+"/link"); got != want {
			t.Errorf("%s is what link leads to: %v, want %v", path, got, want)
		}
		pin.Close()
	}
	// A file that appears later, behind a link.
	if err := os.Symlink(dir+"/b", dir+"/later"); err != nil {
		t.Fatal(err)
	}
	list.refresh(ir.EventOpen)
	closed := list.closedBy(&ir.DynamicRule{Do: []ir.Change{{Kind: ir.ChangeDenyPath, Path: dir + "/later"}}})
	if query.Denied(closed, &query.File{Path: dir + "/b"}) == "" {
		t.Errorf("closed %q, want where the link leads too", closed)
	}
}
