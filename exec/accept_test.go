package exec_test

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// The tests in accept_*_test.go and escape_*_test.go see the programs as users and attackers do, from outside. Their
// names carry the numbers of the acceptance lists that they answer to: supervisor_8_N and network_6_N are behaviour,
// escape_NN is an attack that must fail.

func TestMain(m *testing.M) { exectest.Main(m) }

// control says how an attempt ends where no sandbox is, which shows that the attempt is made at all.
type control uint8

const (
	works        control = iota // "ok" for the same user
	worksForRoot                // "ok" for root
	notRefused                  // for root anything but EPERM and EACCES: bad arguments, nothing to act on
	mayRefuse                   // the host may be set up to refuse it even to root
	harmful                     // would harm the host: no control
)

// attempt is one thing that a policy must refuse.
type attempt struct {
	name    string
	args    []string // of the probe; $WORK, $OUT and what setup returns are replaced
	want    []string // outcomes that are a refusal
	control control
}

// Sets of outcomes. A signal is the filter's answer to a system call of a foreign ABI.
var (
	eperm   = []string{"errno EPERM"}
	eacces  = []string{"errno EACCES"}
	refused = []string{"errno EPERM", "errno EACCES"}
	absent  = []string{"errno EPERM", "errno ENOSYS"}
	killed  = []string{"signal 31", "errno ENOSYS", "errno EPERM"}
)

// suite is attempts under one policy.
type suite struct {
	grants func(b *exectest.Box) exectest.Grants
	// setup prepares the folders before each attempt and returns further words to replace in its arguments.
	setup    func(t *testing.T, b *exectest.Box) []string
	attempts []attempt
	alone    bool // shares something with other tests, or between users
}

// run makes every attempt inside and outside, as root and as an ordinary user.
func (s suite) run(t *testing.T) {
	users := exectest.InParallel
	if s.alone {
		users = exectest.AsUsers
	}
	users(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		var g exectest.Grants
		if s.grants != nil {
			g = s.grants(b)
		}
		artifact := b.Policy(b.Base(g))
		for _, a := range s.attempts {
			t.Run(a.name, func(t *testing.T) {
				b := b.In(t)
				words := []string{"$WORK", b.Work, "$OUT", b.Outside}
				if s.setup != nil {
					words = append(words, s.setup(t, b)...)
				}
				args := replaceAll(a.args, words)
				got := b.Attempt(artifact, args...)
				if got == "absent" {
					t.Skipf("%s: this architecture lacks it", args[0])
				}
				if !refusedAs(got, a.want) {
					t.Errorf("inside: probe %q = %q, want one of %q", args, got, a.want)
				}
				if s.setup != nil {
					args = replaceAll(a.args, append([]string{"$WORK", b.Work, "$OUT", b.Outside}, s.setup(t, b)...))
				}
				a.checkControl(t, b, args)
			})
		}
	})
}

func (a attempt) checkControl(t *testing.T, b *exectest.Box, args []string) {
	t.Helper()
	var got string
	switch a.control {
	case works:
		got = b.Control(args...)
	case harmful:
		return
	default:
		got = b.RootControl(args...)
	}
	switch {
	case got == "absent" && runtime.GOARCH != "amd64": // which has them all
		t.Skipf("%s: this architecture lacks it", args[0])
	case strings.HasPrefix(got, "errno ENOSYS"), strings.HasPrefix(got, "errno EAFNOSUPPORT"),
		strings.HasPrefix(got, "errno EOPNOTSUPP"):
		t.Skipf("this host lacks it: outside, probe %q = %q", args, got)
	case a.control == mayRefuse && refusedAs(got, refused):
		t.Logf("this host refuses it to root as well: outside, probe %q = %q", args, got)
	case a.control == notRefused || a.control == mayRefuse:
		if refusedAs(got, refused) {
			t.Errorf("outside: probe %q = %q: the control is refused too", args, got)
		}
	case got != "ok" && !strings.HasPrefix(got, "value"):
		t.Errorf("outside: probe %q = %q, want ok", args, got)
	}
}

// refusedAs tells whether an outcome is one of the wanted, the step in brackets aside.
func refusedAs(got string, want []string) bool {
	outcome, _, _ := strings.Cut(got, " (")
	return slices.Contains(want, outcome)
}

func replaceAll(args, words []string) []string {
	r := strings.NewReplacer(words...)
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = r.Replace(arg)
	}
	return out
}

// allowed is a table of attempts that must work under a policy.
type allowed struct {
	name string
	args []string
	want string
}

// raced is how often something is raced: n times as the user that the tests run as, and a tenth of it as another one. What
// is raced does not depend on who runs it.
func raced(u exectest.User, n int) string {
	if u != exectest.Self() {
		n /= 10
	}
	return strconv.Itoa(n)
}

// often is how often something is raced of which a sibling is raced in full: a fifth of it, but in a soak test.
func often(n int) int {
	if os.Getenv("SANDLOCK_SOAK") != "" {
		return n
	}
	return n / 5
}

// checkAllowed makes attempts that the policy must not stand in the way of.
func checkAllowed(t *testing.T, b *exectest.Box, artifact string, table []allowed) {
	t.Helper()
	for _, a := range table {
		t.Run(a.name, func(t *testing.T) {
			b := b.In(t)
			args := replaceAll(a.args, []string{"$WORK", b.Work, "$OUT", b.Outside})
			if got := b.Attempt(artifact, args...); got != a.want {
				t.Errorf("probe %q = %q, want %q", args, got, a.want)
			}
		})
	}
}

// wantRun compares how a run ended and what it printed.
func wantRun(t *testing.T, r exectest.Result, code int, stdout string) {
	t.Helper()
	if r.Code != code || strings.TrimSpace(r.Stdout) != stdout {
		t.Errorf("exit %d, printed %q, want exit %d, %q\nstderr: %s", r.Code, r.Stdout, code, stdout, r.Stderr)
	}
}

// wantFailure wants the command's own failure: not 0, and not the executor's 125 to 127.
func wantFailure(t *testing.T, r exectest.Result, inStderr string) {
	t.Helper()
	if r.Code == 0 || (r.Code >= 124 && r.Code <= 127) || !strings.Contains(r.Stderr, inStderr) {
		t.Errorf("exit %d, want the command's own failure with %q in stderr\nstdout: %s\nstderr: %s", r.Code, inStderr,
			r.Stdout, r.Stderr)
	}
}

// python needs the system's Python: a version manager's lies outside policy B.
func python(t *testing.T) string {
	t.Helper()
	return exectest.Program(t, "/usr/bin/python3")
}
