package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

// slow contenders sit out the later rounds, or they would take most of the time for no better a median.
const (
	slowAfter  = 20 * time.Millisecond
	slowRounds = 20
)

// Start is one contender's start-up times.
type Start struct {
	Name    string
	Argv    []string
	UID     int `json:",omitempty"`
	Samples Samples
}

func measureStarts(contenders []contender, rounds int) ([]Start, error) {
	starts := make([]Start, len(contenders))
	for i, c := range contenders {
		starts[i] = Start{Name: c.Name, Argv: c.Argv, UID: c.UID}
	}
	for round := range rounds {
		for i := range starts {
			s := &starts[i]
			if round >= slowRounds && s.Samples.Quantile(0.5) > slowAfter {
				continue
			}
			took, err := timedAs(s.UID, s.Argv)
			if err != nil {
				return nil, fmt.Errorf("round %d: %s: %w", round+1, s.Name, err)
			}
			s.Samples = append(s.Samples, took)
		}
	}
	return starts, nil
}

// timed runs a command from before its fork until it was waited for.
func timed(argv []string) (time.Duration, error) { return timedAs(0, argv) }

// timedAs does it as another user.
func timedAs(uid int, argv []string) (time.Duration, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return 0, err
	}
	attr := &os.ProcAttr{Env: os.Environ(), Files: []*os.File{null, null, null}, Sys: attributes(uid)}
	start := time.Now()
	p, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return 0, err
	}
	state, err := p.Wait()
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	if !state.Success() {
		return 0, fmt.Errorf("%v: %v", argv, state)
	}
	return took, nil
}
