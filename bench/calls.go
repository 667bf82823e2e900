package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// Call compares one operation outside and inside a sandbox, in nanoseconds. Filtered is outside under a seccomp filter
// that allows everything: the kernel's own price of having a filter, which no sandbox can go below.
type Call struct {
	Name                   string
	Bare, Filtered, Inside float64
	Target                 string
}

// callRounds go through all sides in turn; the median of each counts.
const callRounds = 11

func (w workshop) measureCalls() ([]Call, error) {
	plans := []struct{ name, attempt, times, target string }{
		{"getppid, not trapped", "getppid-loop", "1000000", "≤ 1.05 ×"},
		{"stat, not trapped", "stat-loop", "300000", "≤ 1.05 ×"},
		{"open and close, not trapped", "open-loop", "200000", ""},
		{"fork, exit and wait, trapped", "clone-loop", "500", ""},
	}
	var calls []Call
	for _, plan := range plans {
		var bare, filtered, inside []float64
		for range callRounds {
			for _, side := range []struct {
				samples *[]float64
				prefix  []string
				suffix  []string
			}{
				{&bare, nil, nil},
				{&filtered, nil, []string{"filtered"}},
				{&inside, w.sandboxed(), nil},
			} {
				argv := append(append(side.prefix, w.path("probe/probe")), side.suffix...)
				ns, err := nanoseconds(append(argv, plan.attempt, plan.times))
				if err != nil {
					return nil, err
				}
				*side.samples = append(*side.samples, ns)
			}
		}
		calls = append(calls, Call{
			Name: plan.name, Target: plan.target,
			Bare: median(bare), Filtered: median(filtered), Inside: median(inside),
		})
	}
	return calls, nil
}

func (w workshop) sandboxed() []string {
	return []string{w.path("sandlock-exec"), "-p", "dir=" + w.path("probe"), w.path("overhead.sbx"), "--"}
}

// nanoseconds runs the probe, which prints "value N".
func nanoseconds(argv []string) (float64, error) {
	text, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return 0, fmt.Errorf("%v: %w", argv, err)
	}
	return value(string(text))
}

func value(text string) (float64, error) {
	number, ok := strings.CutPrefix(strings.TrimSpace(text), "value ")
	if !ok {
		return 0, fmt.Errorf("printed %q, want a value", text)
	}
	return strconv.ParseFloat(number, 64)
}
