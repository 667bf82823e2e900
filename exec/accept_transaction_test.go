package exec_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// staging is a command line of "sandlock-exec txn".
type staging struct {
	*branched
	dir    string
	policy string
}

func newStaging(t *testing.T, u exectest.User, fields string, more ...string) *staging {
	t.Helper()
	b := newBranched(t, u)
	return &staging{b, b.Dir("txn"), b.policy(fields, more...)}
}

// txn makes a stage of each shell script, all under one policy.
func (s *staging) txn(t *testing.T, flags []string, scripts ...string) exectest.Opts {
	t.Helper()
	type stage struct {
		Artifact string   `json:"artifact"`
		Argv     []string `json:"argv"`
	}
	var file struct {
		Stages []stage `json:"stages"`
	}
	for _, script := range scripts {
		file.Stages = append(file.Stages, stage{s.policy, []string{"/bin/sh", "-c", script}})
	}
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	path := s.File(s.dir+"/stages.json", string(text))
	o := s.Opts("", append(append([]string{exectest.Executor(t), "txn"}, flags...), path)...)
	return o
}

// wantDropped wants that nothing of the stages is left.
func (s *staging) wantDropped(t *testing.T, before string) {
	t.Helper()
	sameTree(t, s.Box, before)
	s.wantNone(t)
}

// What the user ends: the stage that runs gets the signal, no other begins, and nothing is applied.
func Test_filesystem_9_4_94_transaction_signals(t *testing.T) {
	for name, tc := range map[string]struct {
		signal syscall.Signal
		script string
		code   int
	}{
		"interrupt": {syscall.SIGINT, "exec sleep 60", 130},
		"terminate": {syscall.SIGTERM, "exec sleep 60", 143},
		"hang up":   {syscall.SIGHUP, "exec sleep 60", 129},
		"quit":      {syscall.SIGQUIT, "exec sleep 60", 131},
		"succeeds":  {syscall.SIGTERM, `trap "exit 0" TERM; while :; do sleep 0.02; done`, 143},
		"fails":     {syscall.SIGINT, `trap "exit 7" INT; while :; do sleep 0.02; done`, 7},
	} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) {
				s := newStaging(t, u, "")
				before := tree(t, s.Work)
				p := exectest.Start(t, s.txn(t, nil, "echo 1 >new", "echo 2 >in2; "+tc.script, "touch "+s.Work+"/never"))
				upperHas(t, s.branched, "in2")
				if name == "succeeds" || name == "fails" {
					time.Sleep(100 * time.Millisecond) // until the trap is set
				}
				p.Signal(t, tc.signal)
				if r := p.Wait(t); r.Code != tc.code {
					t.Errorf("exit %d, want %d: %s", r.Code, tc.code, r.Stderr)
				}
				s.wantDropped(t, before)
			})
		})
	}
}

// A signal that comes when the commit has begun does not stop it.
func Test_transaction_signal_while_committing(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		s := newStaging(t, u, "")
		release := holdLock(t, s.Work)
		log := s.dir + "/log"
		p := exectest.Start(t, s.txn(t, []string{"--lock-wait", "40s", "--audit", log}, "echo 1 >new", "echo 2 >two"))
		exectest.Within(t, 20*time.Second, "the end of both stages", func() bool {
			text, _ := os.ReadFile(log)
			return strings.Count(string(text), `"event":"exit"`) == 2
		})
		time.Sleep(100 * time.Millisecond)
		p.Signal(t, syscall.SIGINT)
		p.Signal(t, syscall.SIGTERM)
		time.Sleep(100 * time.Millisecond)
		release()
		if r := p.Wait(t); r.Code != 0 {
			t.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
		wantFile(t, s.Work+"/new", "1\n")
		wantFile(t, s.Work+"/two", "2\n")
		s.wantNone(t)
	})
}

// An executor that is killed takes the stage with it, and leaves the directory as it was. Before, nobody of the same user could
// look into it, whichever stage ran.
func Test_transaction_executor_killed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		s := newStaging(t, u, "")
		before := tree(t, s.Work)
		p := exectest.Start(t, s.txn(t, nil, "echo 1 >new", "echo 2 >in2; exec sleep 60"))
		upperHas(t, s.branched, "in2")
		var st syscall.Stat_t
		if err := syscall.Stat(fmt.Sprintf("/proc/%d/mem", p.Cmd.Process.Pid), &st); err != nil || st.Uid != 0 {
			t.Errorf("its memory belongs to user %d (%v)", st.Uid, err)
		}
		p.Signal(t, syscall.SIGKILL)
		p.Wait(t)
		exectest.Within(t, 10*time.Second, "the lock is free", func() bool { return s.list(t)[0].State == "abandoned" })
		sameTree(t, s.Box, before)
		wantRun(t, s.branch(t, "abort", s.wantOne(t, "abandoned").ID), 0, "")
	})
}

// With savepoints, a transaction whose executor was killed goes on from the last one; what the stage did that was not finished is
// gone.
func Test_transaction_killed_and_resumed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		s := newStaging(t, u, "")
		s.File(s.Work+"/old", "old\n")
		before := tree(t, s.Work)
		first, second := "echo 1 >new; rm old", "mkdir d; mv new d/new"
		p := exectest.Start(t, s.txn(t, []string{"--savepoints"}, first, second, "rm -r d; echo 3 >half; exec sleep 60", "true"))
		upperHas(t, s.branched, "half")
		p.Signal(t, syscall.SIGKILL)
		p.Wait(t)
		exectest.Within(t, 10*time.Second, "the lock is free", func() bool { return s.list(t)[0].State == "abandoned" })
		sameTree(t, s.Box, before)
		left := s.wantOne(t, "abandoned")
		if shown := s.branch(t, "show", left.ID).Stdout; !strings.Contains(shown, "\nresume   sandlock-exec txn --resume "+left.Dir+" …") {
			t.Errorf("show: %q", shown)
		}
		wantRun(t, exectest.Run(t, s.txn(t, []string{"--resume", left.Dir}, first, second, "test ! -e half && cat d/new >sum", "test -e sum")), 0, "")
		wantFile(t, s.Work+"/sum", "1\n")
		wantFile(t, s.Work+"/d/new", "1\n")
		wantMissing(t, s.Work+"/old", s.Work+"/half")
		s.wantNone(t)
	})
}

// A stage that has succeeded although a signal came meanwhile is one whose work is kept.
func Test_transaction_signal_keeps_what_has_succeeded(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		s := newStaging(t, u, "")
		p := exectest.Start(t, s.txn(t, []string{"--savepoints"}, "echo 1 >new", `trap "echo 2 >done; exit 0" TERM; echo 2 >in2; while :; do sleep 0.02; done`, "touch never"))
		upperHas(t, s.branched, "in2")
		p.Signal(t, syscall.SIGTERM)
		if r := p.Wait(t); r.Code != 143 {
			t.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
		i := s.wantOne(t, "kept")
		if shown := s.branch(t, "show", i.ID).Stdout; !strings.Contains(shown, "\nA  done  ") || !strings.Contains(shown, "\nA  new  ") || strings.Contains(shown, "never") {
			t.Errorf("show: %q", shown)
		}
	})
}

// Numbers 73, 79 and 91: what is left running does not keep a transaction, whoever holds standard error; and the code says how
// it ended.
func Test_filesystem_9_4_79_transaction_ends(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		s := newStaging(t, u, "")
		before := tree(t, s.Work)
		for name, tc := range map[string]struct {
			flags   []string
			scripts []string
			code    int
			said    string
		}{
			"background":  {nil, []string{"(sleep 300; echo late) & setsid sleep 300 & echo 1 >new; exit 3", "true"}, 3, "stage 1 (sh): exit status 3"},
			"dry run":     {[]string{"--dry-run"}, []string{"sleep 300 & echo 1 >new", "setsid sleep 300 & test -e new"}, 0, ""},
			"time":        {[]string{"--timeout", "300ms"}, []string{"echo 1 >new", "sleep 300"}, 124, "the time limit of the transaction is over"},
			"no time":     {[]string{"--timeout", "0s"}, []string{"echo 1 >new", "true"}, 124, "the time limit of the transaction is over"},
			"signal":      {nil, []string{"echo 1 >new", "kill -SEGV $$"}, 139, "stage 2 (sh): signal: segmentation fault"},
			"killed":      {nil, []string{"echo 1 >new", "kill -KILL $$"}, 137, "stage 2 (sh): signal: killed"},
			"not found":   {nil, []string{"echo 1 >new", "exec /no/such/command"}, 127, "stage 2 (sh): exit status 127"},
			"stage's 124": {nil, []string{"echo 1 >new", "exit 124"}, 124, "stage 2 (sh): exit status 124"},
		} {
			t.Run(name, func(t *testing.T) {
				s := &staging{s.In(t), s.In(t).Dir("txn " + name), s.policy}
				r := exectest.Run(t, s.txn(t, tc.flags, tc.scripts...))
				if r.Code != tc.code || !strings.Contains(r.Stderr, tc.said) {
					t.Errorf("exit %d, %q, want %d, %q", r.Code, r.Stderr, tc.code, tc.said)
				}
				s.wantDropped(t, before)
			})
		}
		holdLock(t, s.Work)
		r := exectest.Run(t, s.txn(t, []string{"--lock-wait", "100ms"}, "echo 1 >new", "true"))
		if kept := s.wantOne(t, "commit-deferred"); r.Code != 75 || !strings.Contains(r.Stderr, "hint: sandlock-exec branch commit "+kept.Dir) {
			t.Errorf("lock: exit %d, %q", r.Code, r.Stderr)
		}
	})
}

// What a policy adds to a start is there for each stage, and gone after the last: a private /tmp and TMPDIR, paths closed and kept
// missing. What the first made is there for the second, whatever the policy closes.
func Test_transaction_views(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		s := newStaging(t, u, "")
		s.policy = s.Policy(strings.Replace(s.text(`deny: ["`+s.Work+`/.env"], protect: ["**/.git/hooks/**"]`, `program: env: TMPDIR: "${tmp}"`), "write: [", "write: [\n\"${tmp}\",", 1))
		for _, dir := range []string{s.Work + "/.git", s.Work + "/.git/hooks"} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(dir, u.UID, u.GID); err != nil {
				t.Fatal(err)
			}
		}
		s.File(s.Work+"/.git/hooks/pre-commit", "mine\n")
		const closed = `test ! -e "$TMPDIR/t" && echo 1 >"$TMPDIR/t"; ls $TMPDIR
(echo x >.env) 2>/dev/null && echo "wrote .env"; (echo x >.git/hooks/pre-commit) 2>/dev/null && echo "wrote a hook"
`
		o := s.txn(t, nil, closed+"mkdir -p mod/.git/hooks; echo made >mod/.git/hooks/h", closed+`(echo x >>mod/.git/hooks/h) 2>/dev/null && echo "wrote the hook that was made"; cat mod/.git/hooks/h; exit 0`)
		base := s.Dir("tmp")
		o.Env = append(o.Env, "TMPDIR="+base)
		wantRun(t, exectest.Run(t, o), 0, "t\nt\nmade")
		wantFile(t, s.Work+"/.git/hooks/pre-commit", "mine\n")
		wantFile(t, s.Work+"/mod/.git/hooks/h", "made\n")
		wantMissing(t, s.Work+"/.env")
		if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
			t.Errorf("left in TMPDIR: %v, %v", left, err)
		}
		s.wantNone(t)
	})
}

// Nobody reads standard error, or can: what is written there is dropped, and the stages go on.
func Test_transaction_stderr_unread(t *testing.T) {
	for _, name := range []string{"unread", "closed", "another user's", "socket"} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) { unread(t, u, name) })
		})
	}
}

func unread(t *testing.T, u exectest.User, name string) {
	s := newStaging(t, u, "")
	r, w, err := os.Pipe()
	if name == "socket" {
		var pair [2]int
		pair, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		r, w = os.NewFile(uintptr(pair[0]), "r"), os.NewFile(uintptr(pair[1]), "w")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	switch {
	case name == "closed":
		r.Close()
	case name == "unread" && u != exectest.Self():
		if err := w.Chown(u.UID, u.GID); err != nil { // who made a pipe is who may open it
			t.Fatal(err)
		}
	}
	o := s.txn(t, nil, "head -c 3000000 /dev/zero >&2; echo 1 >new", "head -c 300000 /dev/zero >&2; echo 2 >two")
	o.Args = append([]string{"/bin/sh", "-c", `exec "$@" 2>&3`, "sh"}, o.Args...)
	o.Files = []*os.File{w}
	p := exectest.Start(t, o)
	w.Close()
	if r := p.Wait(t); r.Code != 0 {
		t.Errorf("exit %d: %s", r.Code, r.Stderr)
	}
	wantFile(t, s.Work+"/two", "2\n")
	s.wantNone(t)
}

// A person at a terminal: the stages have it, one after the other; they can be stopped and continued, and interrupted.
func Test_transaction_terminal(t *testing.T) {
	bash := exectest.Program(t, "/bin/bash")
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		s := newStaging(t, u, "")
		before := tree(t, s.Work)
		tty := exectest.NewPTY(t, u)
		o := s.txn(t, []string{"-q"}, "read line; echo got-$line; echo 1 >new", `echo be''gun >&2; while read line; do echo got-$line; test $line = en''d && exit 0; done`)
		p := exectest.Start(t, exectest.Opts{User: u, Args: []string{bash, "--norc", "--noprofile", "--noediting", "-i"}, TTY: tty, Dir: s.Work, Env: []string{"PATH=/usr/bin:/bin", "HOME=" + s.Work, "PS1=outer$ ", "HISTFILE="}})
		tty.Expect(t, "outer$ ")
		run := strings.Join(o.Args, " ") + "\n"
		for _, end := range []string{"interrupted", "done"} {
			tty.Type(t, run)
			tty.Type(t, "one\n")
			tty.Expect(t, "got-one")
			tty.Expect(t, "begun")
			tty.Type(t, "two\n")
			tty.Expect(t, "got-two")
			tty.Type(t, ctrlZ)
			tty.Expect(t, "Stopped")
			tty.Expect(t, "outer$ ")
			tty.Type(t, "fg\n")
			tty.Expect(t, "stages.json") // bash shows what it continues
			tty.Type(t, "three\n")
			tty.Expect(t, "got-three")
			code := "code 0"
			if end == "interrupted" {
				tty.Type(t, ctrlC)
				code = "code 130"
			} else {
				tty.Type(t, "end\n")
			}
			tty.Expect(t, "outer$ ")
			tty.Type(t, "echo co''de $?\n")
			tty.Expect(t, code)
			tty.Expect(t, "outer$ ")
			if end == "interrupted" {
				s.wantDropped(t, before)
			}
		}
		wantFile(t, s.Work+"/new", "1\n")
		s.wantNone(t)
		tty.Type(t, "exit\n")
		p.Wait(t)
	})
}
