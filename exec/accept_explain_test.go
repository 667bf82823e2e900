package exec_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// What is refused, by whomever, is in the report of --explain-denials, with the rule that decides or comes closest and its
// place.
func Test_explain_denials(t *testing.T) {
	t.Parallel()
	py := python(t)
	const attempts = `
import os, socket, sys
def attempt(call, *args):
    try:
        call(*args)
    except OSError:
        return
    raise SystemExit("nothing was refused")
def tcp(): return socket.socket()
attempt(tcp().connect, ("192.0.2.1", 443))
attempt(tcp().connect, ("192.0.2.1", 443))
attempt(tcp().bind, ("127.0.0.1", 22))
attempt(os.chmod, "/usr", 0o755)
attempt(open, "/usr/x\n\x1b", "w")
attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW)
`
	const onBehalf = attempts + `
attempt(socket.socket(type=socket.SOCK_DGRAM).sendto, b"x", ("192.0.2.1", 54))
attempt(socket.socket(socket.AF_UNIX).connect, sys.argv[1])
attempt(socket.socket(socket.AF_UNIX).bind, "/usr/made.sock")
`
	const who = ` \(pid \d+ [^)]*python3\): `
	for name, tc := range map[string]struct {
		network, script string
		want            []string
	}{
		"handlers": {`{
	allow: ["tcp://192.0.2.1:80", "udp://192.0.2.0/24:53"]
	deny_bind: [22]
	unix: "granted"
}
rules: [{on: ["unlink"], if: path: "/usr/**", then: "deny", reason: "kept"}]`, onBehalf + `attempt(os.unlink, "/usr/x")`, []string{
			`denied connect tcp 192\.0\.2\.1:443` + who + `ECONNREFUSED: no allow rule matches; closest is tcp 192\.0\.2\.1:80 at \S+\.cue:\d+:\d+ \(network\.allow\[0\]\) \(2 times\)\n`,
			`denied sendto udp 192\.0\.2\.1:54` + who + `ECONNREFUSED: no allow rule matches; closest is udp 192\.0\.2\.0/24:53 at \S+\.cue:\d+:\d+ \(network\.allow\[1\]\)\n`,
			`denied bind tcp 127\.0\.0\.1:22` + who + `EACCES: denied by no bind tcp 22 at \S+\.cue:\d+:\d+ \(network\.deny_bind\)\n`,
			`denied connect \S+/closed\.sock` + who + `EACCES: the socket is not beneath a write grant or a path of network\.unix`,
			`denied bind /usr/made\.sock` + who + `EACCES: no rule grants making sockets there; closest is filesystem\.read\[\d+\] at \S+\.cue:\d+:\d+\n`,
			`denied unlink /usr/x` + who + `EPERM: kept at \S+\.cue:\d+:\d+ \(rules\[0\]\)\n`,
		}},
		"kernel": {`{
	allow: ["tcp://*:80,8080", "tcp://*:444"]
	allow_bind: [0, 8080]
}`, attempts, []string{
			`denied connect tcp 192\.0\.2\.1:443` + who + `EACCES: no rule grants TCP port 443; closest is connect tcp \*:444 at \S+\.cue:\d+:\d+ \(network\.allow\[1\]\) \(2 times\)\n`,
			`denied bind tcp 127\.0\.0\.1:22` + who + `EACCES: no rule grants TCP port 22; closest is bind tcp 8080 at \S+\.cue:\d+:\d+ \(network\.allow_bind\[1\]\)\n`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
				b := exectest.NewBox(t, u)
				closed := b.Outside + "/closed.sock"
				listen(t, "unix", closed)
				o := b.Opts(withNetwork(b, tc.network), py, "-c", tc.script, closed)
				o.Flags = []string{"--explain-denials"}
				r := exectest.Run(t, o)
				wantRun(t, r, 0, "")
				for _, want := range append(tc.want,
					`denied \S+ /usr`+who+`EACCES: the file is not beneath a write grant; closest is filesystem\.read\[\d+\] at \S+\.cue:\d+:\d+\n`,
					`denied openat /usr`+who+`EACCES: needs make_reg; closest is filesystem\.read\[\d+\] at`,
					`denied socket`+who+`EPERM: default deny: raw sockets\n`,
				) {
					if !regexp.MustCompile("(?m)^sandlock-exec: " + want).MatchString(r.Stderr) {
						t.Errorf("no line matches %s", want)
					}
				}
				if t.Failed() {
					t.Log(r.Stderr)
				}
			})
		})
	}
}

// A denial is one line, whatever the command has put into its names.
func TestDenialString(t *testing.T) {
	for _, tc := range []struct {
		denial exec.Denial
		want   string
	}{
		{exec.Denial{What: "mount", Verdict: "EPERM", Why: "default deny: mounts", Count: 1}, "denied mount: EPERM: default deny: mounts"},
		{
			exec.Denial{What: "mkdir /x", PID: 7, Command: "sh", Verdict: "EACCES", Why: "needs make_dir", Rule: "filesystem.read[0]", Origin: "p.cue:1:2", Closest: true, Count: 3},
			"denied mkdir /x (pid 7 sh): EACCES: needs make_dir; closest is filesystem.read[0] at p.cue:1:2 (3 times)",
		},
		{exec.Denial{What: "dns x.example", Verdict: "NXDOMAIN", Why: "no rule names it", Origin: "p.cue:1:2", Count: 1}, "denied dns x.example: NXDOMAIN: no rule names it at p.cue:1:2"},
		{exec.Denial{What: "listen", Verdict: "EACCES", Why: "why", Rule: "network.allow_bind", Count: 1}, "denied listen: EACCES: why (network.allow_bind)"},
		{exec.Denial{What: "openat /ü\n\x1b[2J\xff", PID: 7, Verdict: "EACCES", Count: 1}, `denied openat /ü\n\x1b[2J\xff (pid 7): EACCES`},
		{exec.Denial{What: `openat /a\b`, Verdict: "EACCES", Count: 1}, `denied openat /a\b: EACCES`},
	} {
		if got := tc.denial.String(); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

// A denial at an address that was looked up says by which name.
func Test_explain_names(t *testing.T) {
	py := python(t)
	exectest.Helper(t)
	exectest.Lookup(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		s := serveNames(t, zone)
		c := resolving(t, b, s, `allow: ["tcp://192.0.2.9:7", "tcp://*.example.test:8"]`, py, "-c", preamble+`
attempt("port", lambda: reach("a.example.test", 9))
attempt("name", lambda: reach("b.other.test", 8))`)
		c.Explain = true
		if out, err := c.Output(); err != nil || string(out) != "port Connection refused\nname no such name\n" {
			t.Errorf("%v, printed %q", err, out)
		}
		var got []string
		status, _ := c.Status()
		for _, d := range status.Denied {
			got = append(got, d.String())
		}
		report := strings.Join(got, "\n")
		for _, want := range []string{
			`denied connect tcp 127\.0\.0\.1:9 \(pid \d+ \S+\): ECONNREFUSED: a\.example\.test: no allow rule matches; closest is tcp \*\.example\.test:8 at \S+:\d+:\d+ \(network\.allow\[1\]\)`,
			`denied dns b\.other\.test: NXDOMAIN: no rule names it at \S+:\d+:\d+`,
		} {
			if !regexp.MustCompile(want).MatchString(report) {
				t.Errorf("no line matches %s in\n%s", want, report)
			}
		}
	})
}
