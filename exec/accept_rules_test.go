package exec_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// ruled is a policy with rules.
func ruled(rules ...string) exectest.Grants {
	return exectest.Grants{Write: []string{"/dev/null"}, More: "rules: [\n\t" + strings.Join(rules, ",\n\t") + ",\n]"}
}

// lines reads an audit stream.
func auditLines(t *testing.T, file string) (lines []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("audit line %q: %v", line, err)
		}
		lines = append(lines, m)
	}
	return lines
}

// runAudited runs args with an audit stream and returns its lines.
func runAudited(t *testing.T, b *exectest.Box, artifact string, args ...string) (exectest.Result, []map[string]any) {
	t.Helper()
	o := b.Opts(artifact, args...)
	file := b.Dir(fmt.Sprintf("audit%d", len(t.Name()))) + "/log"
	defer os.RemoveAll(strings.TrimSuffix(file, "/log"))
	o.Flags = []string{"--audit", file}
	r := exectest.Run(t, o)
	return r, auditLines(t, file)
}

// A rule about a program holds however the program is reached.
func Test_rules_program_however_reached(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		prepare := func() {
			clear(t, b.Work)
			b.Link("/usr/bin/id", b.Work+"/link")
			b.File(b.Work+"/script", "#!/bin/sh\nid\n")
			b.File(b.Work+"/shebang", "#!/usr/bin/id -u\n")
			if err := os.Chmod(b.Work+"/script", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(b.Work+"/shebang", 0o755); err != nil {
				t.Fatal(err)
			}
		}
		artifacts := map[string]string{
			"exe":  b.Policy(b.Base(ruled(`{on: ["execve"], if: exe: "/usr/bin/id", then: "deny"}`))),
			"link": b.Policy(b.Base(ruled(`{on: ["execve"], if: exe: "/bin/id", then: "deny"}`))),
			"none": b.Policy(b.Base(ruled(`{on: ["execve"], if: exe: "/usr/bin/nothing", then: "deny"}`))),
		}
		for name, argv := range map[string][]string{
			"directly":   {"/usr/bin/id"},
			"by_path":    {"id"},
			"shell":      {"/bin/sh", "-c", "id"},
			"exec":       {"/bin/sh", "-c", "exec /usr/bin/id"},
			"dots":       {"/bin/sh", "-c", "/usr/bin/../bin/./id"},
			"relative":   {"/bin/sh", "-c", "cd /usr/bin && ./id"},
			"env":        {"/usr/bin/env", "id"},
			"symlink":    {"/bin/sh", "-c", "./link"},
			"script":     {"/bin/sh", "-c", "./script"},
			"shebang":    {"/bin/sh", "-c", "./shebang 2>&1"},
			"descriptor": {b.Probe, "exec-fd", "/usr/bin/id"},
			"xargs":      {"/bin/sh", "-c", "echo -u | xargs id"},
			"find":       {"/bin/sh", "-c", "find . -maxdepth 0 -exec id ';'"},
		} {
			for policy, artifact := range artifacts {
				t.Run(name+"/"+policy, func(t *testing.T) {
					prepare()
					r := b.In(t).Run(artifact, argv...)
					ran := strings.Contains(r.Stdout, fmt.Sprint(u.UID)) || strings.Contains(r.Stdout, "no such user")
					if want := policy == "none"; ran != want {
						t.Errorf("the program ran: %v, want %v; exit %d, stdout %q, stderr %q", ran, want, r.Code, r.Stdout, r.Stderr)
					}
				})
			}
		}
	})
}

func Test_supervisor_8_51_rules_arguments(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(ruled(`{on: ["execve"], if: argv_contains: "malicious", then: "deny", reason: "not here"}`)))
		wantRun(t, b.Run(artifact, "/bin/echo", "harmless"), 0, "harmless")
		if r := b.Run(artifact, "/bin/echo", "so malicious"); r.Code != 126 || r.Stdout != "" {
			t.Errorf("exit %d, printed %q, want 126 and nothing", r.Code, r.Stdout)
		}
		wantRun(t, b.Sh(artifact, "/bin/echo mal'ic'ious; echo $?"), 0, "126")
		// Beyond what is read at the first look the second one sees it.
		far := "set -- $(seq 200); /bin/echo $* mal'ic'ious; echo $?"
		wantRun(t, b.Sh(artifact, far), 0, "137")
		long := "x=$(printf '%05000d' 0); /bin/echo ${x}mal'ic'ious; echo $?"
		wantRun(t, b.Sh(artifact, long), 0, "137")
		r, lines := runAudited(t, b, artifact, "/bin/sh", "-c", "/bin/echo mal'ic'ious")
		if r.Code != 126 {
			t.Errorf("exit %d, want 126", r.Code)
		}
		found := false
		for _, l := range lines {
			if l["event"] == "denied" && l["syscall"] == "execve" {
				found = true
				if l["rule"] != "rules[0]" || l["reason"] != "not here" || l["verdict"] != "EPERM" || fmt.Sprint(l["argv"]) != "[/bin/echo malicious]" {
					t.Errorf("audit line %v", l)
				}
			}
		}
		if !found {
			t.Errorf("no audit line of the denial in %v", lines)
		}
	})
}

// Each outcome, on a call that would succeed.
func Test_rules_outcomes(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, tc := range []struct{ then, want string }{
			{`"allow"`, "ok"}, {`"audit"`, "ok"}, {`"deny"`, "errno EPERM"}, {`{errno: "ENOENT"}`, "errno ENOENT"}, {`"kill"`, "signal 9"},
		} {
			for on, args := range map[string][]string{
				`{on: ["open"], if: path: "/etc/passwd", then: %s}`:      {"openat", "/etc/passwd", "r"},
				`{on: ["unlink"], then: %s}`:                             {"call", "unlink", "s:" + b.Work + "/file"},
				`{on: ["unlink"], if: path: "*", then: %s}`:              {"call", "unlink", "s:" + b.Work + "/file"},
				`{on: ["rename"], if: path: "**/moved", then: %s}`:       {"call", "rename", "s:" + b.Work + "/file", "s:" + b.Work + "/moved"},
				`{on: ["file"], if: path: "` + b.Work + `/*", then: %s}`: {"call", "mkdir", "s:" + b.Work + "/dir", "0755"},
			} {
				clear(t, b.Work)
				b.File(b.Work+"/file", "x")
				rule := fmt.Sprintf(on, tc.then)
				if got := b.Attempt(b.Policy(b.Base(ruled(rule))), args...); got != tc.want {
					t.Errorf("%s: probe %q = %q, want %q", rule, args, got, tc.want)
				}
			}
			if got := b.Attempt(b.Policy(b.Base(ruled(`{on: ["clone"], then: `+tc.then+`}`))), "clone", "0"); got != tc.want {
				t.Errorf("clone, then %s: %q, want %q", tc.then, got, tc.want)
			}
		}
	})
}

func Test_rules_conditions(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, tc := range []struct{ name, rule, script, want string }{
			{"after_exec", `{on: ["open"], if: {path: "/etc/hostname", after: "exec"}, then: "deny"}`,
				"read x </etc/hostname && echo one; /bin/true; (read x </etc/hostname) 2>/dev/null || echo two", "one\ntwo"},
			{"count", `{on: ["unlink"], if: {path: "**/*", count: 3}, then: "deny"}`,
				"touch a b c d; for f in a b c d; do rm $f 2>/dev/null && echo $f; done; true", "a\nb"},
			{"count_per_process", `{on: ["unlink"], if: {path: "**/*", count: 3}, then: "deny", scope: "process"}`,
				"touch a b c d; for f in a b c d; do rm $f 2>/dev/null && echo $f; done", "a\nb\nc\nd"},
			{"exe_of_the_caller", `{on: ["unlink"], if: exe: "/bin/rm", then: "deny"}`,
				"touch a b; rm a 2>/dev/null || echo kept; unlink b && echo gone", "kept\ngone"},
			{"first_rule_decides", `{on: ["open"], if: path: "/etc/host*", then: "allow"}, {on: ["open"], if: path: "/etc/**", then: "deny"}`,
				"cat /etc/hostname >/dev/null && echo one; cat /etc/passwd 2>/dev/null || echo two", "one\ntwo"},
			{"only_listed_programs", `{on: ["execve"], if: exe: "/bin/sh", then: "allow"}, {on: ["execve"], if: exe: "/bin/echo", then: "allow"}, {on: ["execve"], then: "deny"}`,
				"/bin/echo one; /bin/true 2>/dev/null || echo two", "one\ntwo"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				clear(t, b.Work)
				wantRun(t, b.In(t).Sh(b.In(t).Policy(b.Base(ruled(tc.rule))), tc.script), 0, tc.want)
			})
		}
	})
}

func Test_supervisor_8_48_rules_deny_path(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, tc := range []struct{ name, rule, script, want string }{
			{"sandbox", `{on: ["execve"], if: argv_contains: "trigger", do: [{deny_path: "/etc/hostname"}]}`,
				"cat /etc/hostname >/dev/null && echo open; /bin/echo trig'ger'; cat /etc/hostname 2>/dev/null || echo closed; cat /etc/passwd >/dev/null && echo other",
				"open\ntrigger\nclosed\nother"},
			// The shell that starts it is not bound, the process and its children are.
			{"process", `{on: ["execve"], if: argv_contains: "trigger", do: [{deny_path: "/etc/hostname"}], scope: "process"}`,
				"/bin/sh -c 'cat /etc/hostname 2>/dev/null || echo closed; (cat /etc/hostname) 2>/dev/null || echo child closed' trig'ger'; cat /etc/hostname >/dev/null && echo open",
				"closed\nchild closed\nopen"},
			{"subtree", `{on: ["execve"], do: [{deny_path: "` + b.Work + `/dir"}]}`,
				"mkdir dir 2>/dev/null || echo closed; mkdir other && echo open; mv other dir 2>/dev/null || echo closed", "closed\nopen\nclosed"},
			{"program", `{on: ["execve"], if: argv_contains: "trigger", do: [{deny_path: "/usr/bin/id"}]}`,
				"id -u >/dev/null && echo open; /bin/echo trig'ger'; id -u 2>/dev/null || echo closed", "open\ntrigger\nclosed"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				clear(t, b.Work)
				wantRun(t, b.In(t).Sh(b.In(t).Policy(b.Base(ruled(tc.rule))), tc.script), 0, tc.want)
			})
		}
	})
}

// A process whose parent is gone, and with it the knowledge whose descendant it is, is bound by everything.
func Test_rules_lost_descent_is_bound(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(ruled(`{on: ["execve"], if: argv_contains: "trigger", do: [{deny_path: "/etc/hostname"}], scope: "process"}`)))
		script := `/bin/sh -c '(sleep 0.2; { cat /etc/hostname 2>/dev/null || echo closed; } >result.new; mv result.new result) & exit' trig'ger'; until [ -e result ]; do sleep 0.05; done; cat result; cat /etc/hostname >/dev/null && echo open`
		wantRun(t, b.Sh(artifact, script), 0, "closed\nopen")
		for _, args := range [][]string{{"call", "prctl", "36", "1", "0", "0", "0"}, {"clone", "0x8000"}} {
			if got := b.Attempt(artifact, args...); got != "errno EPERM" {
				t.Errorf("probe %q = %q, want errno EPERM: it would change who is whose parent", args, got)
			}
			if got := b.Control(args...); refusedAs(got, eperm) {
				t.Errorf("outside: probe %q = %q: the control is refused too", args, got)
			}
		}
	})
}

func Test_supervisor_8_59_rules_restrict_processes(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(ruled(`{on: ["execve"], if: argv_contains: "fork-many", do: [{restrict_processes: 1}]}`)))
		if got := b.Attempt(artifact, "fork-many", "3"); got != "value forked=0 refused=map[EAGAIN:3]" {
			t.Errorf("restricted: %q", got)
		}
		if got := b.Attempt(artifact, "fork-wait", "3"); got != "ok" {
			t.Errorf("not restricted: %q", got)
		}
	})
}

func Test_supervisor_8_45_to_62_rules_events(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(ruled(`{on: ["process", "file"], then: "audit"}`)))
		r, lines := runAudited(t, b, artifact, "/bin/sh", "-c", py+" -c 'print(1)'; mkdir d; mv d e; rmdir e; mkfifo p")
		if r.Code != 0 || r.Stdout != "1\n" {
			t.Errorf("exit %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
		}
		seen := map[string]map[string]any{}
		for _, l := range lines {
			if l["event"] == "held" {
				if l["path"] != nil { // what is not there has none
					seen[strings.TrimSuffix(fmt.Sprint(l["syscall"]), "at")] = l
				}
				if l["verdict"] != "audit" || l["rule"] != "rules[0]" {
					t.Errorf("line %v, want the verdict audit by rules[0]", l)
				}
			}
		}
		for _, call := range []string{"open", "execve", "mkdir"} {
			if seen[call] == nil {
				t.Errorf("no event of %s", call)
			}
		}
		for _, call := range []string{"open", "mkdir"} {
			if path, _ := seen[call]["path"].(string); !strings.HasPrefix(path, "/") {
				t.Errorf("event of %s without a path: %v", call, seen[call])
			}
		}
		if e := seen["execve"]; e["argv"] == nil || e["parent"] == nil || e["parent"].(float64) <= 0 {
			t.Errorf("event of execve without arguments or parent: %v", e)
		}
		// By every call that opens a file.
		denied := b.Policy(b.Base(ruled(`{on: ["open"], if: path: "/etc/hostname", then: "deny"}`)))
		readOnly := b.Policy("filesystem: read: [\"/usr\", \"/lib\", \"/etc\", {path: \"/lib64\", optional: true}, \"" + strings.TrimSuffix(b.Probe, "/probe") + "\"]\n" +
			`rules: [{on: ["open"], if: path: "/etc/hostname", then: "deny"}]`)
		for _, args := range [][]string{
			{"open", "/etc/hostname", "r"}, {"openat", "/etc/hostname", "r"}, {"openat", "/etc/../etc/hostname", "r"},
			{"openat", "/etc/hostname", "x"},
		} {
			if got := b.Attempt(denied, args...); got != "errno EPERM" && got != "absent" {
				t.Errorf("probe %q = %q, want errno EPERM", args, got)
			}
		}
		for path, want := range map[string]string{"/etc/hostname": "errno EPERM", "/etc/passwd": "ok"} {
			for _, resolve := range []string{"none", "no_symlinks", "no_magiclinks"} {
				if got := b.Attempt(readOnly, "openat2", path, "r", resolve); got != want {
					t.Errorf("openat2 of %s, %s: %q, want %q", path, resolve, got, want)
				}
			}
		}
	})
}

func Test_rules_do_not_widen(t *testing.T) {
	b := exectest.NewBox(t, exectest.Self())
	for rule, want := range map[string]string{
		`{on: ["execve"], do: [{restrict_processes: 65}]}`:                          "rule-widens",
		`{on: ["execve"], do: [{restrict_memory: "1M"}]}`:                           "rule-narrows",
		`{on: ["execve"], do: [{restrict_processes: 65}], scope: "process"}`:        "rule-widens",
		`{on: ["execve"], do: [{restrict_memory: "1M"}], scope: "process"}`:         "rule-narrows",
		`{on: ["execve"], do: [{restrict_network: ["tcp://nowhere.example:443"]}]}`: "rule-host",
		`{on: ["execve"], then: "allow"}], program: {no_supervisor: true`:           "",
	} {
		r, _ := b.Compile(b.Base(ruled(rule)))
		if r.Code == 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s: exit %d, %s", rule, r.Code, r.Stderr)
		}
	}
	// What a rule lets through the static policy still refuses.
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Outside+"/secret", "S")
		artifact := b.Policy(b.Base(ruled(`{on: ["file"], if: path: "` + b.Outside + `/**", then: "allow"}`)))
		for _, args := range [][]string{
			{"openat", secret, "r"}, {"openat", secret, "w"}, {"openat", b.Outside + "/new", "c"}, {"call", "unlink", "s:" + secret},
			{"call", "mkdir", "s:" + b.Outside + "/d", "0755"}, {"call", "truncate", "s:" + secret, "0"}, {"call", "link", "s:" + secret, "s:" + b.Outside + "/l"},
			{"call", "rename", "s:" + secret, "s:" + b.Outside + "/m"}, {"call", "symlink", "s:x", "s:" + b.Outside + "/l"},
		} {
			if got := b.Attempt(artifact, args...); got != "errno EACCES" {
				t.Errorf("probe %q = %q, want errno EACCES", args, got)
			}
		}
		if r := b.RootControl("openat", secret, "r"); r != "ok" {
			t.Errorf("outside: %q", r)
		}
	})
}

func Test_rules_kill_ends_the_process(t *testing.T) {
	b := exectest.NewBox(t, exectest.Self())
	artifact := b.Policy(b.Base(ruled(`{on: ["execve"], if: argv_contains: "malicious", then: "kill"}`)))
	wantRun(t, b.Sh(artifact, "(exec /bin/echo mal'ic'ious); echo $?"), 0, fmt.Sprint(128+int(syscall.SIGKILL)))
}

// O_PATH gives a name to a file and no access; what is then done with it is decided by the file.
func Test_rules_open_path_only(t *testing.T) {
	py := python(t)
	script := `
import os, sys
work = sys.argv[1]
fd = os.open(work + "/free", os.O_PATH)
print(os.fstat(fd).st_size, open("/proc/self/fd/%d" % fd).read())
directory = os.open(work, os.O_PATH | os.O_DIRECTORY)
print(os.read(os.open("free", os.O_RDONLY, dir_fd=directory), 9).decode())
def attempt(what):
    try: print(what())
    except OSError as e: print(e.strerror)
attempt(lambda: os.open("closed", os.O_RDONLY, dir_fd=directory))
attempt(lambda: os.open(work + "/closed", os.O_PATH))`
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		b.File(b.Work+"/free", "free")
		b.File(b.Work+"/closed", "closed")
		policy := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(`rules: [{on: ["open"], if: path: %q, then: "deny"}]`, b.Work+"/closed")}))
		wantRun(t, b.Run(policy, py, "-c", script, b.Work), 0, "4 free\nfree\nOperation not permitted\nOperation not permitted")
	})
}

// A rule about sends alone leaves connecting, and what it does not name, alone.
func Test_rules_sendto_alone(t *testing.T) {
	udp := datagramListener(t, "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{More: `
network: allow: ["udp://*"]
rules: [{on: ["sendto"], if: port: 9999, then: "deny"}]`}))
		checkAllowed(t, b, policy, []allowed{
			{"other", []string{"send", udp.LocalAddr().String(), datagram, "0", "0"}, "ok"},
			{"sendmsg", []string{"sendmsg", udp.LocalAddr().String(), datagram, "0", "0"}, "ok"},
			{"denied", []string{"send", "127.0.0.1:9999", datagram, "0", "0"}, "errno EPERM"},
			{"connect", []string{"connect", "127.0.0.1:9999", datagram, "0"}, "ok"},
		})
	})
}
