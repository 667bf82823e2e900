package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// View is what a start in namespaces costs, and what it costs afterwards to be in them.
type View struct {
	Starts []ViewStart
	Calls  []Call
	Gaps   []string
}

// ViewStart is a contender's start-up times, and the contender that they are compared with.
type ViewStart struct {
	Start
	Against, Target string
}

// ordinaryUser is who the starts are measured as when the benchmark runs as root, who needs no user namespace for the others.
const ordinaryUser = 65534

// denied is how many paths the policy of the start with many rules denies.
const denied = 1000

// The starts, and what each is compared with.
const (
	viewPlain    = "sandlock-exec, user + mount"
	viewPrivate  = "sandlock-exec, all + /proc"
	viewDeny     = "sandlock-exec, user + mount, 1000 denied"
	bwrapPlain   = "bwrap --unshare-user"
	bwrapPrivate = "bwrap --unshare-all --proc"
	bwrapDeny    = "bwrap --unshare-user, 1000 covered"
)

func (w workshop) measureView(rounds int) (v View, err error) {
	if err := w.buildView(); err != nil {
		return View{}, err
	}
	if rounds > 0 {
		progress("starts in namespaces: %d rounds", rounds)
		if v.Starts, v.Gaps, err = w.measureViewStarts(rounds); err != nil {
			return View{}, err
		}
	}
	progress("work in namespaces")
	v.Calls, err = w.measureViewCalls()
	return v, err
}

// buildView compiles the policies. The one with many rules denies files that exist, each of which has to be covered.
func (w workshop) buildView() error {
	for policy, artifact := range map[string]string{"bench/view.cue": "view.sbx", "bench/private.cue": "private.sbx"} {
		if err := run(w.path("sandlock-compile"), policy, "-o", w.path(artifact)); err != nil {
			return err
		}
	}
	text, err := os.ReadFile("bench/view.cue")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(w.path("denied"), 0o755); err != nil {
		return err
	}
	var policy strings.Builder
	policy.Write(text)
	policy.WriteString("filesystem: deny: [\n")
	for _, path := range w.deniedPaths() {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&policy, "\t%q,\n", path)
	}
	policy.WriteString("]\n")
	if err := os.WriteFile(w.path("deny.cue"), []byte(policy.String()), 0o644); err != nil {
		return err
	}
	return run(w.path("sandlock-compile"), w.path("deny.cue"), "-o", w.path("deny.sbx"))
}

func (w workshop) deniedPaths() (paths []string) {
	for i := range denied {
		paths = append(paths, filepath.Join(w.path("denied"), fmt.Sprintf("file%d", i)))
	}
	return paths
}

// viewed runs a command under one of the policies. The folder of the denied files is granted by what grants the probe's.
func (w workshop) viewed(artifact string) []string {
	return []string{w.path("sandlock-exec"), "-p", "dir=" + w.out, w.path(artifact), "--"}
}

func (w workshop) measureViewStarts(rounds int) (starts []ViewStart, gaps []string, err error) {
	bare := []string{"bwrap", "--ro-bind", "/", "/", "--tmpfs", "/tmp"}
	covered := join(bare, []string{"--unshare-user"})
	for _, path := range w.deniedPaths() {
		covered = append(covered, "--ro-bind", "/dev/null", path)
	}
	plans := []startPlan{
		{name: yardstick, argv: []string{w.path("spawn")}},
		{name: viewPlain, against: bwrapPlain, target: "≤ 1.0 ×", argv: w.viewed("view.sbx")},
		{name: bwrapPlain, argv: join(bare, []string{"--unshare-user"})},
		{name: viewPrivate, against: bwrapPrivate, target: "≤ 1.0 ×", argv: w.viewed("private.sbx")},
		{name: bwrapPrivate, argv: join(bare, []string{"--unshare-all", "--die-with-parent", "--proc", "/proc"})},
		{name: viewDeny, against: viewPlain, target: "flat", argv: w.viewed("deny.sbx")},
		{name: bwrapDeny, against: bwrapPlain, argv: covered},
	}
	return measurePlans(command, rounds, func(int) ([]startPlan, error) { return plans, nil })
}

// startPlan is a start that is to be measured.
type startPlan struct {
	name, against, target string
	argv                  []string
	lacks                 string // why it cannot be; "" if it can
}

// measurePlans measures starts of a command. Root measures those of an ordinary user, too, who may have other plans.
func measurePlans(command string, rounds int, plans func(uid int) ([]startPlan, error)) (starts []ViewStart, gaps []string, err error) {
	users := []int{os.Getuid()}
	if users[0] == 0 {
		users = []int{ordinaryUser, 0}
	}
	var found []contender
	for _, uid := range users {
		list, err := plans(uid)
		if err != nil {
			return nil, nil, err
		}
		for _, p := range list {
			c := contender{Name: asUser(p.name, uid), Argv: append(p.argv[:len(p.argv):len(p.argv)], command), UID: uid}
			if p.lacks != "" {
				gaps = append(gaps, fmt.Sprintf("%s (%s)", c.Name, p.lacks))
				continue
			}
			if text, err := c.command().CombinedOutput(); err != nil {
				gaps = append(gaps, fmt.Sprintf("%s (%v: %.200s)", c.Name, err, strings.TrimSpace(string(text))))
				continue
			}
			found = append(found, c)
			against := p.against
			if against != "" {
				against = asUser(against, uid)
			}
			starts = append(starts, ViewStart{Against: against, Target: p.target})
		}
	}
	measured, err := measureStarts(found, rounds)
	if err != nil {
		return nil, nil, err
	}
	for i := range measured {
		starts[i].Start = measured[i]
	}
	return starts, gaps, nil
}

func asUser(name string, uid int) string { return fmt.Sprintf("%s, uid %d", name, uid) }

// Programs repeat inside, where a shell takes the time: their start is not the sandbox's.
const programScript = `t=${EPOCHREALTIME/[.,]/}; for i in 1 2 3 4 5; do %s >/dev/null || exit 1; done; echo value $(( (${EPOCHREALTIME/[.,]/} - t) * 1000 / 5 ))`

// measureViewCalls has everything take turns, as measureCalls.
func (w workshop) measureViewCalls() ([]Call, error) {
	probe := w.path("probe/probe")
	program := func(line string) []string {
		return []string{"exec", "/bin/bash", "-c", fmt.Sprintf(programScript, line)}
	}
	plans := []struct {
		name    string
		attempt []string // of the probe
		needs   string
	}{
		{"10⁵ opens", []string{"open-loop", "100000"}, ""},
		{"10⁵ stats", []string{"stat-loop", "100000"}, ""},
		// find fails by 1 where a folder is root's alone: inside, root has no capabilities to read it.
		{"find /usr", program("{ /usr/bin/find /usr 2>/dev/null || [ $? = 1 ]; }"), "/usr/bin/find"},
		{"python3 -c 'import json,ssl,sqlite3'", program("/usr/bin/python3 -c 'import json,ssl,sqlite3'"), "/usr/bin/python3"},
	}
	policies := []struct{ name, artifact string }{{"user + mount", "view.sbx"}, {"all + /proc", "private.sbx"}}
	var calls []Call
	for _, plan := range plans {
		if plan.needs != "" {
			if _, err := exec.LookPath(plan.needs); err != nil {
				continue
			}
		}
		samples := make([][]float64, 2+len(policies))
		for range callRounds {
			sides := [][]string{{probe}, {probe, "filtered"}}
			for _, p := range policies {
				sides = append(sides, append(w.viewed(p.artifact), probe))
			}
			for i, side := range sides {
				ns, err := nanoseconds(join(side, plan.attempt))
				if err != nil {
					return nil, err
				}
				samples[i] = append(samples[i], ns)
			}
		}
		for i, p := range policies {
			calls = append(calls, Call{
				Name: plan.name + ", " + p.name, Target: "≤ 1.03 ×",
				Bare: median(samples[0]), Filtered: median(samples[1]), Inside: median(samples[2+i]),
			})
		}
	}
	return calls, nil
}

// view writes what namespaces cost.
func (r *Report) view(w io.Writer) {
	if len(r.View.Calls) == 0 && len(r.View.Starts) == 0 {
		return
	}
	startsTable(w, fmt.Sprintf("start `%s` in namespaces", command), r.View.Starts)
	for _, gap := range r.View.Gaps {
		fmt.Fprintf(w, "| %s | not measured | | | | | |\n", gap)
	}
	callsTable(w, "in namespaces", r.View.Calls)
}

// startsTable writes starts, each with its ratio to what it is compared with.
func startsTable(w io.Writer, what string, starts []ViewStart) {
	medians := map[string]float64{}
	for _, s := range starts {
		medians[s.Name] = inMillis(s.Samples.Quantile(0.5))
	}
	fmt.Fprintf(w, "\n| %s | p50 ms | p95 ms | compared with | ratio | runs | target |\n|---|---:|---:|---|---:|---:|---|\n", what)
	for _, s := range starts {
		times := ""
		if base := medians[s.Against]; base > 0 {
			times = fmt.Sprintf("%.2f ×", medians[s.Name]/base)
		}
		fmt.Fprintf(w, "| %s | %.2f | %.2f | %s | %s | %d | %s |\n", s.Name, medians[s.Name], inMillis(s.Samples.Quantile(0.95)),
			s.Against, times, len(s.Samples), s.Target)
	}
}
