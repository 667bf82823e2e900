package exec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func Test_escape_10_races_around_a_denied_file(t *testing.T) {
	if testing.Short() {
		t.Skip("100000 opens")
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Work+"/secret", "S")
		dir := b.Dir("racing")
		if err := os.Mkdir(dir+"/d", 0o755); err != nil {
			t.Fatal(err)
		}
		own(t, b, dir+"/d")
		b.File(dir+"/d/secret", "S")
		artifact := b.Policy(b.Base(exectest.Grants{Write: []string{dir}, More: denied(secret, dir+"/d/secret")}))
		for want, args := range map[string][]string{
			"value leaks=none opened=some refused=some":            {"swap-race", b.Work, secret, raced(u, often(100000))},
			"value leaks=none moved=none opened=some refused=some": {"rename-race", dir, raced(u, 30000)},
		} {
			o := b.Opts(artifact, append([]string{b.Probe}, args...)...)
			o.Timeout = 3 * time.Minute
			if r := exectest.Run(t, o); strings.TrimSpace(strings.Replace(r.Stdout, "opened=none", "opened=some", 1)) != want {
				t.Errorf("%s inside: %q, want %q\n%s", args[0], r.Stdout, want, r.Stderr)
			}
		}
		for _, name := range []string{b.Work + "/link", b.Work + "/next", b.Work + "/ok", dir + "/x", dir + "/y"} {
			_ = os.RemoveAll(name)
		}
		for _, args := range [][]string{{"swap-race", b.Work, secret, "10000"}, {"rename-race", dir, "10000"}} {
			if got := b.Control(args...); !strings.HasPrefix(got, "value leaks=some") {
				t.Errorf("%s outside: %q, want leaks", args[0], got)
			}
		}
	})
}

// Descriptors from outside that lead around the mounts are closed before the command starts.
func Test_escape_13_directory_from_outside(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		b.File(b.Work+"/secret", "S")
		dir, err := os.Open(b.Work)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		o := b.Opts(b.Policy(b.Base(exectest.Grants{More: denied(b.Work + "/secret")})), b.Probe, "call", "openat", "3", "s:secret", "0", "0")
		o.Files = []*os.File{dir}
		wantRun(t, exectest.Run(t, o), 0, "errno EBADF")
		o.Policy = ""
		wantRun(t, exectest.Run(t, o), 0, "ok")
		// The standard streams are the caller's to give: what is open stays open.
		o = b.Opts(b.Policy(b.Base(exectest.Grants{More: denied(b.Work + "/secret")})), "/bin/sh", "-c", "head -c1 < secret; ls")
		if r := exectest.Run(t, o); strings.Contains(r.Stdout, "S\n") || !strings.Contains(r.Stdout, "secret") {
			t.Errorf("printed %q", r.Stdout)
		}
	})
}

func Test_escape_15_handles_of_a_denied_file(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Work+"/secret", "S")
		artifact := b.Policy(b.Base(exectest.Grants{More: denied(secret)}))
		handle := strings.Fields(b.RootControl("handle", secret))
		if len(handle) != 3 {
			t.Skipf("this file system has no handles: %q", handle)
		}
		open := []string{"open-handle", b.Work, handle[1], handle[2]}
		if got := b.Attempt(artifact, open...); !refusedAs(got, eperm) {
			t.Errorf("inside: %q, want errno EPERM", got)
		}
		if got := b.RootControl(open...); got != "ok" {
			t.Errorf("outside as root: %q, want ok", got)
		}
	})
}

// A denied program does not run, however it is started.
func Test_escape_20_denied_program(t *testing.T) {
	ld := loader(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		program := b.Work + "/program"
		copyFile(t, b, "/bin/echo", program)
		copyFile(t, b, "/bin/echo", b.Work+"/other")
		if err := os.Link(program, b.Work+"/hard"); err != nil {
			t.Fatal(err)
		}
		b.Link("program", b.Work+"/link")
		for name, interpreter := range map[string]string{"script": program, "control": b.Work + "/other"} {
			b.File(b.Work+"/"+name, "#!"+interpreter+" value\n")
			_ = os.Chmod(b.Work+"/"+name, 0o755)
		}
		grants := exectest.Grants{Read: []string{"/proc"}, More: denied(program)}
		artifact, plain := b.Policy(b.Base(grants)), b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}}))
		for name, args := range map[string][]string{
			"exec": {"exec", program, "ok"}, "link": {"exec", b.Work + "/link", "ok"}, "hard link": {"exec", b.Work + "/hard", "ok"},
			"root": {"exec", "/proc/self/root" + program, "ok"}, "execveat": {"exec-fd", program, "ok"}, "memfd": {"exec-memfd", program, "ok"},
			"copy": {"exec-copy", program, b.Work + "/copy", "ok"}, "script": {"exec", b.Work + "/script"},
			"loader": {"exec", "/bin/sh", "-c", ld + " " + program + " ok 2>&- || echo errno EACCES"},
		} {
			if got := b.Attempt(artifact, args...); !refusedAs(got, eacces) {
				t.Errorf("%s: %q, want errno EACCES", name, got)
			}
			if got := b.Attempt(plain, args...); got != "ok" && !strings.HasPrefix(got, "value") {
				t.Errorf("%s without the rule: %q, want it to run", name, got)
			}
			_ = os.Remove(b.Work + "/copy")
		}
		if got := b.Attempt(artifact, "exec", b.Work+"/control"); !strings.HasPrefix(got, "value") {
			t.Errorf("another script: %q", got)
		}
	})
}

// The same file shown by a mount of the policy is another name, which has to be denied, too: policy.md says so.
func Test_denied_file_shown_by_another_mount(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		second := b.Dir("second")
		secret := b.File(b.Outside+"/secret", "S")
		mount := fmt.Sprintf("filesystem: mount: [{target: %q, source: %q}]\n", second, b.Outside)
		one := b.Policy(b.Base(exectest.Grants{Read: []string{b.Outside}, More: mount + denied(secret)}))
		both := b.Policy(b.Base(exectest.Grants{Read: []string{b.Outside}, More: mount + denied(secret, second+"/secret")}))
		if got := b.Attempt(one, "openat", secret, "r"); got != "errno EACCES" {
			t.Errorf("denied name: %q", got)
		}
		t.Logf("the other name, not denied: %s", b.Attempt(one, "openat", second+"/secret", "r"))
		if got := b.Attempt(both, "openat", second+"/secret", "r"); got != "errno EACCES" {
			t.Errorf("other name, denied: %q", got)
		}
	})
}

// What the mounts refuse is explained with the rule and its place.
func Test_explain_denials_of_the_view(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		b.File(b.Work+"/secret", "S")
		b.File(b.Work+"/kept", "k")
		for _, dir := range []string{"/d", "/d/e"} {
			if err := os.Mkdir(b.Work+dir, 0o755); err != nil {
				t.Fatal(err)
			}
			own(t, b, b.Work+dir)
		}
		b.File(b.Work+"/d/e/f", "S")
		artifact := b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}, More: denied(b.Work+"/secret", b.Work+"/d/e", b.Work+"/missing") + protected("kept")}))
		o := b.Opts(artifact, "/bin/sh", "-c", `
cat secret; cat d/e/f; cat d/e/none; (echo x > missing); (echo x > kept); mv secret x; rm -f kept; mv d y; chmod 600 secret; touch kept; cat /proc/kcore; ./secret; exit 0`)
		o.Flags = []string{"--explain-denials", "--audit", b.Outside + "/audit"}
		r := exectest.Run(t, o)
		audit, err := os.ReadFile(b.Outside + "/audit")
		if err != nil {
			t.Fatal(err)
		}
		const place = `\S+\.cue:\d+:\d+`
		for _, want := range []string{
			`openat \S+/work/secret \(.*EACCES: closed, whatever is granted at ` + place + ` \(filesystem\.deny\[0\]\)`,
			`openat \S+/work/d/e/f \(.*EACCES: closed, whatever is granted at ` + place + ` \(filesystem\.deny\[1\]\)`,
			`openat \S+/work/d/e/none \(.*EACCES: closed, whatever is granted at ` + place + ` \(filesystem\.deny\[1\]\)`,
			`openat \S+/work/missing \(.*EACCES: closed, whatever is granted at ` + place + ` \(filesystem\.deny\[2\]\)`,
			`openat \S+/work/kept \(.*EROFS: protected from changes at ` + place + ` \(filesystem\.protect\[0\]\)`,
			`rename\S* \S+/work/secret \(.*EBUSY: it has to stay where it is at ` + place + ` \(filesystem\.deny\[0\]\)`,
			`unlink\S* \S+/work/kept \(.*EBUSY: it has to stay where it is at ` + place + ` \(filesystem\.protect\[0\]\)`,
			`rename\S* \S+/work/d \(.*EBUSY: it has to stay where it is at ` + place + ` \(filesystem\.deny\[1\]\)`,
			`\w*chmod\S* \S+/work/secret \(.*EACCES: .*filesystem\.deny\[0\] at ` + place,
			`execve \S+/work/secret \(.*EACCES: closed, whatever is granted at ` + place + ` \(filesystem\.deny\[0\]\)`,
		} {
			if !regexp.MustCompile(`(?m)^sandlock-exec: denied ` + want).MatchString(r.Stderr) {
				t.Errorf("no line matches %s", want)
			}
		}
		for _, want := range []string{`"rule":"filesystem.deny[0]"`, `"rule":"filesystem.protect[0]"`} {
			if !strings.Contains(string(audit), want) {
				t.Errorf("the audit stream has no %s", want)
			}
		}
		if t.Failed() {
			t.Logf("%s", r.Stderr)
		}
	})
}

// What sandlock-compile explain says of a path is what happens.
func Test_query_agrees_with_the_view(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		read := b.Dir("readable")
		for _, path := range []string{read + "/a", b.Work + "/a", b.Work + "/secret", b.Work + "/kept", b.Outside + "/a"} {
			b.File(path, "x")
		}
		for _, dir := range []string{"/dir", "/.git", "/.git/hooks"} {
			if err := os.Mkdir(b.Work+dir, 0o755); err != nil {
				t.Fatal(err)
			}
			own(t, b, b.Work+dir)
		}
		b.File(b.Work+"/dir/file", "x")
		b.File(b.Work+"/.git/hooks/hook", "x")
		b.File(b.Work+"/.git/config", "x")
		artifact := b.Policy(b.Base(exectest.Grants{Read: []string{read}, More: denied(b.Work+"/secret", b.Work+"/dir", read+"/none", b.Work+"/missing") +
			protected("**/.git/hooks/**", "kept")}))
		for _, path := range []string{
			read + "/a", b.Work + "/a", b.Work + "/secret", b.Work + "/dir/file", b.Work + "/kept", b.Work + "/.git/hooks/hook", b.Work + "/.git/config", b.Outside + "/a",
			"/etc/passwd", "/usr/bin/env",
		} {
			for mode, want := range map[string]string{"r": "read", "w": "write"} {
				r := exectest.Run(t, exectest.Opts{User: exectest.Self(), Args: []string{exectest.Compiler(t), "explain", "--for", want, artifact, "open", path}, Dir: filepath.Dir(artifact)})
				said := strings.Contains(r.Stdout, "allow")
				if !said && !strings.Contains(r.Stdout, "den") {
					t.Fatalf("explain %s: %s%s", path, r.Stdout, r.Stderr)
				}
				got := b.Attempt(artifact, "openat", path, mode)
				if said != (got == "ok") && !(mode == "w" && strings.HasPrefix(path, "/usr")) {
					t.Errorf("%s %s: explain says %q, the kernel %q", want, path, strings.TrimSpace(r.Stdout), got)
				}
			}
		}
	})
}
