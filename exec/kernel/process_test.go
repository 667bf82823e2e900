package kernel

import (
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	// The name is the process's own choice: it may look like fields.
	line := "42 (a) R 7 (b)) T 7 42 42 0 -1 4194308 100 0 0 0 5 6 21 34 20 0 3 0 98765 1000 100"
	got, err := parseStat([]byte(line))
	want := Stat{State: 'T', Parent: 7, Exiting: true, Threads: 3, Children: 550 * time.Millisecond, Start: 98765}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 (a", "42 (a) R 7", strings.Replace(line, " 3 0 98765", " x 0 98765", 1)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCPUTimeOfThisProcess(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 1e7; i++ {
		_ = i * i
	}
	after, err := CPUTime(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("CPU time went from %v to %v, %v", before, after, err)
	}
	if _, err := CPUTime(1 << 22); err == nil {
		t.Error("a process that cannot exist has CPU time")
	}
}

func TestHaltedAndDemand(t *testing.T) {
	if Halted(os.Getpid()) {
		t.Error("this process is said to be halted")
	}
	if got := Demand(os.Getpid()); got <= 0 {
		t.Errorf("this process, which runs, is said to use %v processors", got)
	}
	if !Halted(1<<22) || Demand(1<<22) != 0 {
		t.Error("a process that cannot exist is said to run")
	}
}

func TestParseTag(t *testing.T) {
	const head = "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max locked memory         8388608              8388608              bytes     \n"
	for text, want := range map[string]uint64{
		head + "Max file locks            unlimited            unlimited            locks     \n": math.MaxUint64,
		head + "Max file locks            77                   78                   locks     \n": 78,
	} {
		if got, err := parseTag([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", head, head + "Max file locks            77\n", head + "Max file locks            77    x    locks\n"} {
		if _, err := parseTag([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// A tag goes to children and on to theirs, whatever becomes of those between.
func TestTagsAreInherited(t *testing.T) {
	own, err := Tag(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/bin/sh", "-c", `read go; (setsid /bin/sh -c 'grep "Max file locks" /proc/self/limits' &) ; read end`)
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
	defer func() { _ = in.Close(); _ = c.Wait() }()
	tag := min(own, math.MaxInt64) - 5
	if err := SetTag(c.Process.Pid, tag); err != nil {
		t.Fatal(err)
	}
	if got, err := Tag(c.Process.Pid); err != nil || got != tag {
		t.Errorf("the process has %d, %v, want %d", got, err, tag)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	n, _ := out.Read(line)
	if got, err := parseTag(line[:n]); err != nil || got != tag {
		t.Errorf("a grandchild in a session of its own has %d, %v, want %d", got, err, tag)
	}
	if again, _ := Tag(os.Getpid()); again != own {
		t.Errorf("the parent has %d, had %d", again, own)
	}
}
