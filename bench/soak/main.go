// The runtime would keep the control group's cpu.max open (Go 1.25); the executor has it off too.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command soak runs sandboxes that fork, map, execute and die, and watches that their executors keep nothing of it: no
// descriptor, thread, goroutine, process or memory.
//
//	go run ./bench/soak -for 10m
//
// In: how long. Out: what was counted at the start and at the end, a verdict, and exit code 1 if something grew. Half of
// the sandboxes are sandlock-exec processes that live for the whole time while their command starts others; the other half
// are started by this process one after the other (exec.Cmd), so that what a sandbox leaves behind adds up here. It says
// nothing about speed.
//
// Read next: watch.go (what is counted, and what counts as growth).
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandlock-go/sandlock/exec"
)

const (
	long  = 4 // sandboxes that live as long as the soak
	short = 4 // at a time, of those that live for a moment
)

func main() {
	length := flag.Duration("for", 10*time.Minute, "how long")
	flag.Parse()
	ok, err := soak(*length)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func soak(length time.Duration) (ok bool, err error) {
	dir, err := os.MkdirTemp("", "sandlock-soak-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	w := workplace(dir)
	if err := w.build(); err != nil {
		return false, err
	}
	var executors []*osexec.Cmd
	defer func() {
		for _, e := range executors {
			_ = e.Process.Signal(os.Interrupt)
			_ = e.Wait()
		}
	}()
	subjects := []*subject{{name: "this process, a sandbox after the other", pid: os.Getpid(), self: true}}
	for i := range long {
		e := osexec.Command(w.path("sandlock-exec"), append(w.params(), w.path("soak.sbx"), "--", w.path("probe/probe"),
			"churn", strconv.FormatInt((length+time.Minute).Milliseconds(), 10), w.path("work/file"))...)
		if err := e.Start(); err != nil {
			return false, err
		}
		executors = append(executors, e)
		subjects = append(subjects, &subject{name: fmt.Sprintf("sandlock-exec %d", i+1), pid: e.Process.Pid})
	}
	artifact, err := exec.Load(w.path("soak.sbx"))
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var workers sync.WaitGroup
	var sandboxes atomic.Int64
	failed := make(chan error, short)
	for range short {
		workers.Go(func() {
			for ctx.Err() == nil {
				if err := w.once(artifact); err != nil {
					failed <- err
					return
				}
				sandboxes.Add(1)
			}
		})
	}
	if err := watch(ctx, subjects, failed); err != nil {
		return false, err
	}
	workers.Wait()
	fmt.Printf("%v, %d sandboxes that live as long, %d that lived for a moment\n\n", length, long, sandboxes.Load())
	return report(os.Stdout, subjects), nil
}

// workplace is the folder with the programs and the policy.
type workplace string

func (w workplace) path(name string) string { return filepath.Join(string(w), name) }

func (w workplace) params() []string {
	return []string{"-p", "dir=" + w.path("probe"), "-p", "work=" + w.path("work")}
}

func (w workplace) build() error {
	for _, dir := range []string{"probe", "work"} {
		if err := os.Mkdir(w.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(w.path("work/file"), nil, 0o600); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"go", "build", "-o", w.path("sandlock-compile"), "./cmd/sandlock-compile"},
		{"go", "build", "-o", w.path("sandlock-exec"), "./cmd/sandlock-exec"},
		{"go", "build", "-o", w.path("probe/probe"), "./exec/exectest/probe"},
		{w.path("sandlock-compile"), "bench/handlers.cue", "-o", w.path("soak.sbx")},
	} {
		cmd := osexec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", argv, err, text)
		}
	}
	return nil
}

// once runs a sandbox within this process, to its end.
func (w workplace) once(a *exec.Artifact) error {
	cmd := a.Command(context.Background(), w.path("probe/probe"), "churn", "1", w.path("work/file"))
	cmd.Params = map[string]string{"dir": w.path("probe"), "work": w.path("work")}
	text, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(text, []byte("value rounds=")) {
		return fmt.Errorf("a sandbox ended with %v and printed %q", err, text)
	}
	return nil
}
