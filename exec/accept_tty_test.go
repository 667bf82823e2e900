package exec_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// onTerminal runs args with a pseudo-terminal as controlling terminal, and returns what it shows in the end.
func onTerminal(t *testing.T, b *exectest.Box, args ...string) (string, *exectest.PTY) {
	t.Helper()
	tty := exectest.NewPTY(t, b.User)
	exectest.Run(t, exectest.Opts{User: b.User, Args: args, TTY: tty, Dir: b.Work})
	return tty.Output(), tty
}

// Numbers 94 to 96: only a run that has the terminal for all of its streams takes it, and it gives it back.
func Test_supervisor_8_94_95_96_foreground(t *testing.T) { foreground(t, exectest.Grants{}) }

func foreground(t *testing.T, grants exectest.Grants) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(grants))
		seen := filepath.Join(b.Work, "seen")
		for _, tc := range []struct {
			name, mode string
			command    []string
			during     string
		}{
			{"supervisor_8_94_captured", "captured", []string{"foreground"}, "foreground=false"},
			{"supervisor_8_95_interactive", "interactive", []string{"foreground"}, "foreground=true"},
			{"supervisor_8_96_killed", "terminate=" + seen, []string{"foreground-file", seen, "30"}, "foreground=true"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := b.In(t)
				args := append([]string{b.Probe, "tty-parent", tc.mode, exectest.Executor(t), "-q", artifact, "--", b.Probe}, tc.command...)
				got, _ := onTerminal(t, b, args...)
				if !strings.Contains(got, "before: value foreground=true") || !strings.Contains(got, "after: value foreground=true") {
					t.Errorf("the starter's terminal: %q, want it in the foreground before and after", got)
				}
				if !strings.Contains(got, tc.during) {
					t.Errorf("the command's terminal: %q, want %s", got, tc.during)
				}
			})
		}
	})
}

// Attacks on the terminal that the command shares with its user. The controls type for real.
func Test_escape_01_02_03_terminal_injection(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		for _, tc := range []struct {
			name, cmd string
			types     bool // where it is not refused, the byte arrives
		}{
			{"escape_01_tiocsti", "0x5412", true},
			{"escape_02_tiocsti_high_bits", "0x100005412", true},
			{"escape_03_tioclinux", "0x541c", false}, // a pseudo-terminal has no selection to paste
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := b.In(t)
				// A line end, since a terminal hands on whole lines only.
				attempt := []string{b.Probe, "call", "ioctl", "0", tc.cmd, "h:0a"}
				got, tty := onTerminal(t, b, append([]string{exectest.Executor(t), "-q", artifact, "--"}, attempt...)...)
				if !strings.Contains(got, "errno EPERM") {
					t.Errorf("inside: %q, want errno EPERM", got)
				}
				if n := tty.Typed(t); n != 0 {
					t.Errorf("inside: %d bytes were typed on the terminal", n)
				}
				got, tty = onTerminal(t, b, attempt...)
				switch {
				case strings.Contains(got, "errno EIO"):
					t.Skip("this host has dev.tty.legacy_tiocsti off: no control")
				case strings.Contains(got, "errno EPERM"):
					t.Errorf("outside: %q: the control is refused too", got)
				case tc.types && tty.Typed(t) != 1:
					t.Errorf("outside: %q, %d bytes typed, want 1", got, tty.Typed(t))
				}
			})
		}
	})
}

// A command on a terminal that stops, and is continued by its shell, right after and right before it executes programs:
// that rules have executions traced must not show.
func Test_rules_job_control(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for name, g := range map[string]exectest.Grants{
			"without_rules": {}, "with_rules": ruled(`{on: ["execve"], if: argv_contains: "malicious", then: "deny"}`),
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				artifact := b.Policy(b.Base(g))
				script := "set -m\n" + exectest.Executor(t) + " -q " + artifact + ` -- /bin/sh -c '/bin/true; kill -STOP $$; /bin/echo resu"med"; exec /bin/sh -c "kill -STOP \$\$; exec /bin/echo aga"in""'
jobs >/dev/null; fg >/dev/null; fg >/dev/null; echo e"nd"`
				got, _ := onTerminal(t, b, "/bin/bash", "-c", script)
				if !strings.Contains(got, "resumed") || !strings.Contains(got, "again") || !strings.Contains(got, "end") {
					t.Errorf("the terminal shows %q", got)
				}
			})
		}
	})
}
