package exectest_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func TestMain(m *testing.M) { exectest.Main(m) }

// The harness must see what is there: a control that cannot succeed proves nothing.
func TestControlsSucceedOutside(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		file := b.File(b.Outside+"/file", "S")
		for _, tc := range []struct {
			args []string
			want string
		}{
			{[]string{"openat", file, "r"}, "ok"},
			{[]string{"openat", file + ".missing", "r"}, "errno ENOENT"},
			{[]string{"call", "getpid"}, "ok"},
			{[]string{"call", "9999"}, "errno ENOSYS"},
			{[]string{"nnp"}, "value 0"},
			{[]string{"clone", "0"}, "ok"},
			{[]string{"fork-many", "3"}, "value forked=3 refused=map[]"},
			{[]string{"threads", "8"}, "value threads=8"},
			{[]string{"fd-pass"}, "ok"},
			{[]string{"self-signal"}, "ok"},
			{[]string{"exec", b.Probe, "nnp"}, "value 0"},
			{[]string{"swap-race", b.Work, file, "5000"}, "value leaks=some opened=some refused=none"},
		} {
			if got := b.Control(tc.args...); got != tc.want {
				t.Errorf("probe %q = %q, want %q", tc.args, got, tc.want)
			}
		}
	})
}

func TestRunReportsSignalAndCode(t *testing.T) {
	b := exectest.NewBox(t, exectest.Self())
	for script, want := range map[string]int{"exit 42": 42, "kill -TERM $$": 128 + int(syscall.SIGTERM)} {
		if got := exectest.Run(t, b.Opts("", "/bin/sh", "-c", script)); got.Code != want {
			t.Errorf("%q ended with %d, want %d", script, got.Code, want)
		}
	}
}

func TestStartCanBeSignalled(t *testing.T) {
	b := exectest.NewBox(t, exectest.Self())
	p := exectest.Start(t, b.Opts("", b.Probe, "sleep", "60"))
	p.Signal(t, syscall.SIGTERM)
	if got, want := p.Wait(t).Code, 128+int(syscall.SIGTERM); got != want {
		t.Errorf("code %d, want %d", got, want)
	}
}

func TestPTYIsControllingTerminal(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		o := b.Opts("", b.Probe, "foreground")
		o.TTY, o.Timeout = exectest.NewPTY(t, u), 10*time.Second
		if got, want := exectest.Run(t, o).Stdout, "value foreground=true\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
