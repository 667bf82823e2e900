package exec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// load compiles policy B with grants, and loads it as a program would.
func load(t *testing.T, b *exectest.Box, g exectest.Grants) *exec.Artifact {
	t.Helper()
	a, err := exec.Load(b.In(t).Policy(b.Base(g)))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func wantOutput(t *testing.T, c *exec.Cmd, want string) {
	t.Helper()
	out, err := c.Output()
	if err != nil || string(out) != want {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		t.Errorf("output %q (%v), want %q", out, err, want)
	}
}

func TestCmdRuns(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		a := load(t, b, exectest.Grants{})
		secret := b.File(b.Outside+"/secret", "S")
		wantOutput(t, a.Command(bounded(t), "echo", "hello"), "hello\n")
		wantOutput(t, a.Command(bounded(t), "/bin/sh", "-c", "cat "+secret+" 2>/dev/null || echo refused"), "refused\n")
		if out, err := osexec.Command("cat", secret).Output(); err != nil || string(out) != "S" {
			t.Errorf("the program itself: %q, %v; it must stay unconfined", out, err)
		}

		c := a.Command(bounded(t), "/bin/sh", "-c", "echo out; echo oops >&2; exit 42")
		_, err := c.Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Status.Code != 42 || string(exit.Stderr) != "oops\n" {
			t.Errorf("exit 42: %v", err)
		}
		if s, ok := c.Status(); !ok || s.Code != 42 || s.Peak.RSS == 0 {
			t.Errorf("status %+v, %v", s, ok)
		}
		if again := c.Wait(); again == nil || again.Error() != err.Error() {
			t.Errorf("a second Wait: %v, want %v", again, err)
		}
		if err := c.Start(); !errors.Is(err, exec.ErrStarted) {
			t.Errorf("a second Start (supervisor_8_92): %v", err)
		}

		both, err := a.Command(bounded(t), "/bin/sh", "-c", "echo a; echo b >&2; echo c").CombinedOutput()
		if err != nil || string(both) != "a\nb\nc\n" {
			t.Errorf("combined %q, %v", both, err)
		}
		c = a.Command(bounded(t), "/bin/sh", "-c", "kill -TERM $$")
		if err := c.Run(); !errors.As(err, &exit) || exit.Status.Signal != unix.SIGTERM || exit.Status.Code != 143 {
			t.Errorf("signal: %v", err)
		}
		var missing *exec.CommandError
		if err := a.Command(bounded(t), "no-such-command").Run(); !errors.As(err, &missing) || missing.Code != exec.CodeNotFound {
			t.Errorf("not found: %v", err)
		}
		if err := a.Command(bounded(t), b.Outside).Run(); !errors.As(err, &missing) || missing.Code != exec.CodeNotExecutable {
			t.Errorf("not executable: %v", err)
		}
	})
}

// Numbers 82 to 90 and 117 to 119 of the acceptance list.
func TestCmdStreams(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		a := load(t, b, exectest.Grants{})
		t.Run("nothing_started", func(t *testing.T) {
			ended, end := context.WithCancel(t.Context())
			end()
			c := a.Command(ended, "cat")
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error)
			go func() {
				_, err := out.Read(make([]byte, 1))
				read <- err
			}()
			if err := c.Start(); !errors.Is(err, context.Canceled) {
				t.Errorf("start: %v, want the context's error", err)
			}
			select {
			case <-read:
			case <-time.After(30 * time.Second):
				t.Error("who reads the output waits for ever")
			}
		})
		t.Run("supervisor_8_82_pipes_both_ways", func(t *testing.T) {
			c := a.Command(bounded(t), "cat")
			in, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Write([]byte("hello\n")); err != nil {
				t.Error(err)
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
			text, err := io.ReadAll(out)
			if err != nil || string(text) != "hello\n" {
				t.Errorf("read %q, %v", text, err)
			}
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
		})
		t.Run("supervisor_8_84_90_null", func(t *testing.T) {
			c := a.Command(bounded(t), "/bin/sh", "-c", "cat; stat -Lc %t:%T /proc/self/fd/0 /dev/stdin 2>/dev/null; exit 0")
			if err := c.Run(); err != nil { // cat would hang on a terminal or fail on a closed descriptor
				t.Error(err)
			}
		})
		t.Run("supervisor_8_89_all_three", func(t *testing.T) {
			var out, errs bytes.Buffer
			c := a.Command(bounded(t), "/bin/sh", "-c", "cat; echo oops >&2")
			c.Stdin, c.Stdout, c.Stderr = strings.NewReader("in"), &out, &errs
			if err := c.Run(); err != nil || out.String() != "in" || errs.String() != "oops\n" {
				t.Errorf("%v, out %q, err %q", err, out.String(), errs.String())
			}
		})
		t.Run("file", func(t *testing.T) {
			f, err := os.Create(b.Work + "/out")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			c := a.Command(bounded(t), "echo", "to file")
			c.Stdout = f
			if err := c.Run(); err != nil {
				t.Error(err)
			}
			if text, _ := os.ReadFile(f.Name()); string(text) != "to file\n" {
				t.Errorf("file holds %q", text)
			}
		})
		t.Run("supervisor_8_117_118_119_megabytes", func(t *testing.T) {
			var out, errs bytes.Buffer
			c := a.Command(bounded(t), "/bin/sh", "-c", "head -c 1048576 /dev/zero & head -c 1048576 /dev/zero | tr '\\0' e >&2; wait")
			c.Stdout, c.Stderr = &out, &errs
			err := c.Run()
			if err != nil || out.Len() != 1<<20 || errs.Len() != 1<<20 || bytes.Count(errs.Bytes(), []byte("e")) != 1<<20 {
				t.Errorf("%v, %d bytes out, %d bytes err", err, out.Len(), errs.Len())
			}
		})
		t.Run("supervisor_8_83_85_88_one_stream", func(t *testing.T) {
			c := a.Command(bounded(t), "/bin/sh", "-c", "echo oops >&2; echo out")
			errs, err := c.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.StderrPipe(); err == nil {
				t.Error("a stream can be taken twice")
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(errs); err != nil || string(text) != "oops\n" {
				t.Errorf("stderr %q, %v", text, err)
			}
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
			if _, err := c.StdinPipe(); !errors.Is(err, exec.ErrStarted) {
				t.Errorf("a pipe after the start: %v", err)
			}
		})
		t.Run("supervisor_8_93_taken_and_captured", func(t *testing.T) {
			var errs bytes.Buffer
			c := a.Command(bounded(t), "/bin/sh", "-c", "echo out; echo err >&2")
			c.Stderr = &errs
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(out)
			if err := c.Wait(); err != nil || string(text) != "out\n" || errs.String() != "err\n" {
				t.Errorf("%v, out %q, err %q", err, text, errs.String())
			}
		})
		t.Run("supervisor_8_86_nobody_writes", func(t *testing.T) {
			wantOutput(t, a.Command(bounded(t), "/bin/sh", "-c", "cat; echo end"), "end\n")
		})
		t.Run("closed_descriptors_of_our_own", func(t *testing.T) {
			wantOutput(t, a.Command(bounded(t), b.Probe, "fds"), "value 0 1 2\n")
		})
	})
}

// Numbers 87, 91, 101 and 120 to 122.
func TestCmdLifecycle(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		a := load(t, b, exectest.Grants{})
		c := a.Command(bounded(t), "sleep", "300")
		for name, f := range map[string]func() error{"Kill": c.Kill, "Wait": c.Wait, "Pause": c.Pause, "Resume": c.Resume, "Signal": func() error { return c.Signal(unix.SIGTERM) }} {
			if err := f(); !errors.Is(err, exec.ErrNotStarted) {
				t.Errorf("%s before the start: %v", name, err)
			}
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		pid := c.Pid()
		if err := unix.Kill(pid, 0); err != nil {
			t.Errorf("pid %d: %v", pid, err)
		}
		for _, f := range []func() error{c.Pause, c.Pause, c.Resume, c.Resume, c.Pause} { // supervisor_8_25
			if err := f(); err != nil {
				t.Error(err)
			}
		}
		exectest.Within(t, 5*time.Second, "a paused command is stopped", func() bool { // it does not run before, but may be in the kernel
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err == nil && strings.Contains(string(stat), ") T ")
		})
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		var exit *exec.ExitError
		if err := c.Wait(); !errors.As(err, &exit) || !exit.Status.Killed {
			t.Errorf("after Kill: %v", err)
		}
		if err := c.Kill(); !errors.Is(err, exec.ErrEnded) {
			t.Errorf("Kill after the end: %v", err)
		}
		if err := c.Pause(); !errors.Is(err, exec.ErrEnded) {
			t.Errorf("Pause after the end: %v", err)
		}

		t.Run("context", func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			c := a.Command(ctx, "sleep", "300")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := c.Wait(); !errors.Is(err, context.Canceled) {
				t.Errorf("after cancel: %v", err)
			}
			if err := a.Command(ctx, "true").Run(); !errors.Is(err, context.Canceled) {
				t.Errorf("with a context that is over: %v", err)
			}
		})
		t.Run("timeout", func(t *testing.T) {
			c := a.Command(bounded(t), "sleep", "300")
			c.Timeout = 200 * time.Millisecond
			var exit *exec.ExitError
			if err := c.Run(); !errors.As(err, &exit) || !exit.Status.TimedOut || exit.Status.Code != 124 {
				t.Errorf("after the timeout: %v", err)
			}
		})
		t.Run("supervisor_8_87_descendants", func(t *testing.T) {
			out, err := a.Command(bounded(t), "/bin/sh", "-c", "(setsid sleep 300 >/dev/null 2>&1 & echo $!); exit 0").Output()
			if err != nil {
				t.Fatal(err)
			}
			var pid int
			if _, err := fmt.Sscan(string(out), &pid); err != nil {
				t.Fatal(err)
			}
			exectest.Within(t, 5*time.Second, "the grandchild gone", func() bool { return gone(pid) })
		})
		t.Run("supervisor_8_120_abandoned_wait", func(t *testing.T) {
			var out bytes.Buffer
			mark := b.Work + "/printed"
			c := a.Command(bounded(t), "/bin/sh", "-c", "printf hello; (sleep 300 &) ; : > "+mark+"; sleep 300")
			c.Stdout = &out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			exectest.Within(t, 20*time.Second, "the output written", func() bool { _, err := os.Stat(mark); return err == nil })
			select {
			case <-c.Done():
				t.Fatal("done before it was killed")
			default:
			}
			_ = c.Kill()
			<-c.Done()
			if out.String() != "hello" {
				t.Errorf("output %q, want hello", out.String())
			}
		})
		t.Run("supervisor_8_121_122_survivors_hold_a_stream", func(t *testing.T) {
			a := load(t, b, exectest.Grants{Write: []string{"/dev/null"}})
			for _, held := range []string{"2>/dev/null", ">/dev/null"} {
				var out, errs bytes.Buffer
				c := a.Command(bounded(t), "/bin/sh", "-c", "printf hello; (sleep 300 "+held+" &); sleep 0.2; exit 0")
				c.Stdout, c.Stderr = &out, &errs
				if err := c.Run(); err != nil || out.String() != "hello" {
					t.Errorf("survivor with %s: %v, %q", held, err, out.String())
				}
				if s, _ := c.Status(); s.Detached == 0 {
					t.Errorf("survivor with %s: none was ended", held)
				}
			}
		})
		t.Run("other_children_are_left_alone", func(t *testing.T) {
			other := osexec.Command("sleep", "0.3")
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			wantOutput(t, a.Command(bounded(t), "/bin/sh", "-c", "(sleep 300 &); echo ok"), "ok\n")
			if err := other.Wait(); err != nil {
				t.Errorf("our own child: %v", err)
			}
		})
	})
}

// Sandboxes of one program keep to themselves, and one that idles holds up no other (number 123).
// countingContext counts what waits for it to be done.
type countingContext struct {
	context.Context
	done    chan struct{}
	waiting atomic.Int32
	ever    atomic.Int32
}

func (c *countingContext) Done() <-chan struct{} { return c.done }

func (c *countingContext) AfterFunc(func()) (stop func() bool) {
	c.waiting.Add(1)
	c.ever.Add(1)
	return func() bool { c.waiting.Add(-1); return true }
}

func TestCmdLeavesItsContext(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		ctx := &countingContext{Context: context.Background(), done: make(chan struct{})}
		if err := load(t, b, exectest.Grants{}).Command(ctx, "true").Run(); err != nil {
			t.Fatal(err)
		}
		if ever, waiting := ctx.ever.Load(), ctx.waiting.Load(); ever == 0 || waiting != 0 {
			t.Errorf("%d of %d functions still wait for the context of an ended sandbox, want 0 of at least 1", waiting, ever)
		}
	})
}

func TestCmdParallel(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		a := load(t, b, exectest.Grants{})
		var wg sync.WaitGroup
		long := a.Command(bounded(t), "/bin/sh", "-c", "(setsid sleep 300 &); read line; echo $line")
		in, err := long.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		long.Stdout = &out
		if err := long.Start(); err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 5 {
					wantOutput(t, a.Command(bounded(t), "/bin/sh", "-c", fmt.Sprintf("(sleep 300 &); echo %d | cat", i)), fmt.Sprintf("%d\n", i))
				}
			}()
		}
		wg.Wait()
		if _, err := in.Write([]byte("still here\n")); err != nil {
			t.Errorf("the long one: %v", err)
		}
		if err := long.Wait(); err != nil || out.String() != "still here\n" {
			t.Errorf("the long one: %v, %q", err, out.String())
		}
	})
}

func TestCmdCreate(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		a := load(t, b, exectest.Grants{})
		mark := b.Work + "/mark"
		c := a.Command(bounded(t), "/bin/sh", "-c", "echo ran > mark; pwd")
		c.Dir = b.Work
		var out bytes.Buffer
		c.Stdout = &out
		if err := c.Create(); err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Pid()))
		if err != nil || !strings.Contains(string(status), "Seccomp:\t2") {
			t.Errorf("the parked child is not confined: %v\n%s", err, status)
		}
		if _, err := os.Stat(mark); err == nil {
			t.Error("the command ran before Start")
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil || out.String() != b.Work+"\n" {
			t.Errorf("after Start: %v, %q", err, out.String())
		}
		c = a.Command(bounded(t), "/bin/sh", "-c", "echo ran >> "+mark)
		if err := c.Create(); err != nil {
			t.Fatal(err)
		}
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err == nil {
			t.Error("a command that was killed before it ran succeeded")
		}
		if text, _ := os.ReadFile(mark); string(text) != "ran\n" {
			t.Errorf("mark holds %q: the second command ran", text)
		}
	})
}
