package kernel

import (
	"os"
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
