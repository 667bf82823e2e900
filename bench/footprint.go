package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Single is one measured number.
type Single struct {
	Name, Value, Target string
}

const compileRuns = 15

func (w workshop) measureFootprint() ([]Single, error) {
	var compiles Samples
	for range compileRuns {
		took, err := timed([]string{w.path("sandlock-compile"), "policies/agent.cue", "-o", w.path("agent.sbx")})
		if err != nil {
			return nil, err
		}
		compiles = append(compiles, took)
	}
	info, err := os.Stat(w.path("sandlock-exec"))
	if err != nil {
		return nil, err
	}
	resident, err := w.residentPeak()
	if err != nil {
		return nil, err
	}
	return []Single{
		{"compile policies/agent.cue, cold, median", millis(compiles.Quantile(0.5)), "≤ 25 ms"},
		{"sandlock-exec, size", mebibytes(info.Size()), "≤ 8 MiB"},
		{"sandlock-exec, peak resident memory while a command sleeps", mebibytes(resident), "≤ 12 MiB"},
	}, nil
}

// residentPeak is the supervisor's VmHWM (proc(5)) once its command runs.
func (w workshop) residentPeak() (int64, error) {
	cmd := exec.Command(w.path("sandlock-exec"), w.path("minimal.sbx"), "--", "/bin/sleep", "10")
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	time.Sleep(500 * time.Millisecond)
	n := resident(cmd.Process.Pid, "VmHWM")
	if n == 0 {
		return 0, fmt.Errorf("no VmHWM in /proc/%d/status: did sandlock-exec end early?", cmd.Process.Pid)
	}
	return n, nil
}
