package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Notified is one way to have a call answered, in nanoseconds as its caller sees them. Bare is the same call outside; the
// rest is the price of asking.
type Notified struct {
	Name         string
	Bare         float64 // 0: not of interest
	Median, Best float64
	Target       string
}

// Crowd is how long calls take when many threads make them at once, in nanoseconds.
type Crowd struct {
	Name     string
	P50, P99 float64
}

// The yardstick of notified calls, and what is compared with it.
const (
	leastLoop = "getppid, C supervisor of two system calls"
	pollLoop  = "getppid, C supervisor that polls"
	ourLoop   = "getppid, our loop"
)

// The ports that bench/handlers.cue lets be served and sent to.
const (
	servedPort   = "39517"
	datagramPort = "39518"
)

// crowdThreads is how many threads make the same call at once.
const crowdThreads = 64

// measureNotified compares supervisors on the cheapest call, then shows what each handler costs. Everything takes turns,
// as in measureCalls.
func (w workshop) measureNotified() ([]Notified, error) {
	if err := os.MkdirAll(w.path("work"), 0o755); err != nil {
		return nil, err
	}
	file := w.path("work/file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	probe, none := []string{w.path("probe/probe")}, []string(nil)
	plans := []struct {
		name, target string
		prefix       []string // of the side that is notified
		bare         bool
		attempt      []string
	}{
		{leastLoop, "", []string{w.path("notify")}, false, []string{"getppid-loop", "30000"}},
		{pollLoop, "", []string{w.path("notify"), "poll"}, false, []string{"getppid-loop", "30000"}},
		{ourLoop, "≤ 1.3 ×", []string{w.path("loop")}, false, []string{"getppid-loop", "30000"}},
		{"rt_sigaction of SIGCHLD: memory read and written (restart)", "", w.handled(), true, []string{"sigaction-loop", "20000"}},
		{"listen: address looked up (listen)", "", w.handled(), true, []string{"listen-loop", "10000", servedPort}},
		{"fchmodat: carried out on behalf (metadata)", "", w.handled(), true, []string{"chmod-loop", "5000", file}},
		{"open and close: the path looked at, left to the kernel (machine)", "", w.handled(), true, []string{"open-loop", "20000"}},
		{"sendto of a datagram: sent on behalf (network)", "≤ 4 × bare", w.handled(), true, []string{"datagram-loop", "10000", "127.0.0.1:" + datagramPort}},
		{"fork, exit and wait: processes counted (processes)", "", w.handled(), true, []string{"clone-loop", "300"}},
	}
	bare, notified := make([][]float64, len(plans)), make([][]float64, len(plans))
	for range callRounds {
		for i, plan := range plans {
			sides := map[*[]float64][]string{&notified[i]: plan.prefix}
			if plan.bare {
				sides[&bare[i]] = none
			}
			for samples, prefix := range sides {
				ns, err := nanoseconds(join(prefix, probe, plan.attempt))
				if err != nil {
					return nil, err
				}
				*samples = append(*samples, ns)
			}
		}
	}
	var list []Notified
	for i, plan := range plans {
		n := Notified{Name: plan.name, Target: plan.target, Median: median(notified[i]), Best: least(notified[i])}
		if plan.bare {
			n.Bare = median(bare[i])
		}
		list = append(list, n)
	}
	return list, nil
}

// measureCrowds has many threads ask at once. The median round of each counts.
func (w workshop) measureCrowds() ([]Crowd, error) {
	plans := []struct {
		name   string
		prefix []string
		call   string
	}{
		{leastLoop, []string{w.path("notify")}, "getppid"},
		{ourLoop, []string{w.path("loop")}, "getppid"},
		{"rt_sigaction of SIGCHLD (restart)", w.handled(), "sigaction"},
	}
	p50, p99 := make([][]float64, len(plans)), make([][]float64, len(plans))
	for range callRounds {
		for i, plan := range plans {
			argv := join(plan.prefix, []string{w.path("probe/probe"), "latency", strconv.Itoa(crowdThreads), "300", plan.call})
			text, err := exec.Command(argv[0], argv[1:]...).Output()
			if err != nil {
				return nil, fmt.Errorf("%v: %w", argv, err)
			}
			var middle, high, longest float64
			if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "value %f %f %f", &middle, &high, &longest); err != nil {
				return nil, fmt.Errorf("%v printed %q", argv, text)
			}
			p50[i], p99[i] = append(p50[i], middle), append(p99[i], high)
		}
	}
	var list []Crowd
	for i, plan := range plans {
		list = append(list, Crowd{plan.name, median(p50[i]), median(p99[i])})
	}
	return list, nil
}

// handled runs a command under a policy that has every handler wired.
func (w workshop) handled() []string {
	return []string{w.path("sandlock-exec"), "-p", "dir=" + w.path("probe"), "-p", "work=" + w.path("work"), w.path("handlers.sbx"), "--"}
}

func join(lists ...[]string) (argv []string) {
	for _, l := range lists {
		argv = append(argv, l...)
	}
	return argv
}
