package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Call compares one system call outside and inside a sandbox, in nanoseconds.
type Call struct {
	Name         string
	Bare, Inside float64
	Target       string
}

// callRounds alternate between outside and inside; the median of each side counts.
const callRounds = 11

func (w workshop) measureCalls() ([]Call, error) {
	plans := []struct{ name, attempt, times, target string }{
		{"getppid, not trapped", "getppid-loop", "1000000", "≤ 1.05 ×"},
		{"fork, exit and wait, trapped", "clone-loop", "500", ""},
	}
	var calls []Call
	for _, plan := range plans {
		var bare, inside []float64
		for range callRounds {
			b, err := w.probe(false, plan.attempt, plan.times)
			if err != nil {
				return nil, err
			}
			i, err := w.probe(true, plan.attempt, plan.times)
			if err != nil {
				return nil, err
			}
			bare, inside = append(bare, b), append(inside, i)
		}
		calls = append(calls, Call{Name: plan.name, Bare: median(bare), Inside: median(inside), Target: plan.target})
	}
	return calls, nil
}

// probe returns the nanoseconds that the probe prints as "value N".
func (w workshop) probe(sandboxed bool, args ...string) (float64, error) {
	argv := append([]string{w.path("probe/probe")}, args...)
	if sandboxed {
		argv = append([]string{
			w.path("sandlock-exec"), "-p", "dir=" + filepath.Dir(argv[0]), w.path("overhead.sbx"), "--",
		}, argv...)
	}
	text, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return 0, fmt.Errorf("%v: %w", argv, err)
	}
	number, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "value ")
	if !ok {
		return 0, fmt.Errorf("%v printed %q", argv, text)
	}
	return strconv.ParseFloat(number, 64)
}
