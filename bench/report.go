package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report is one run of the benchmark.
type Report struct {
	Host     string
	Runs     int
	Starts   []Start
	Calls    []Call
	Notified []Notified
	Crowds   []Crowd
	Traffic  []Traffic
	HTTP     HTTP
	View     View
	Branches Branches
	Single   []Single
	Gaps     []string // contenders that could not be run
}

// Samples are durations of the same thing.
type Samples []time.Duration

// Quantile is the nearest-rank quantile; 0 without samples.
func (s Samples) Quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func least(values []float64) float64 { return slices.Min(values) }

func (r *Report) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s, %d rounds\n\n", r.Host, r.Runs)
	fmt.Fprintf(w, "| start `%s` | p50 ms | p95 ms | p95 / p50 | ratio to %s | runs | target |\n", command, yardstick)
	fmt.Fprintln(w, "|---|---:|---:|---:|---:|---:|---|")
	base := r.p50(yardstick)
	for _, s := range r.Starts {
		p50, p95 := s.Samples.Quantile(0.5), s.Samples.Quantile(0.95)
		fmt.Fprintf(w, "| %s | %.2f | %.2f | %.2f | %.2f × | %d | %s |\n", s.Name, inMillis(p50), inMillis(p95),
			ratio(p95, p50), ratio(p50, base), len(s.Samples), r.startTarget(s.Name))
	}
	for _, gap := range r.Gaps {
		fmt.Fprintf(w, "| %s | not measured | | | | | |\n", gap)
	}
	callsTable(w, "system call", r.Calls)
	r.notified(w)
	r.traffic(w)
	r.http(w)
	r.view(w)
	r.branches(w)
	fmt.Fprintf(w, "\n| what | measured | target |\n|---|---:|---|\n")
	for _, s := range r.Single {
		fmt.Fprintf(w, "| %s | %s | %s |\n", s.Name, s.Value, s.Target)
	}
}

// callsTable writes what something costs outside, under any filter, and inside.
func callsTable(w io.Writer, what string, calls []Call) {
	fmt.Fprintf(w, "\n| %s | bare ns | any filter ns | inside ns | ratio to bare | ratio to any filter | target |\n", what)
	fmt.Fprintln(w, "|---|---:|---:|---:|---:|---:|---|")
	for _, c := range calls {
		fmt.Fprintf(w, "| %s | %.1f | %.1f | %.1f | %.3f × | %.3f × | %s |\n", c.Name, c.Bare, c.Filtered, c.Inside,
			c.Inside/c.Bare, c.Inside/c.Filtered, c.Target)
	}
}

// notified writes what it costs to ask the supervisor. Ratios are to the C supervisor, whose fastest run is what the loop
// is aimed at: on a busy machine the median says more of the machine.
func (r *Report) notified(w io.Writer) {
	if len(r.Notified) == 0 {
		return
	}
	base := r.Notified[0]
	fmt.Fprintf(w, "\n| notified call | bare ns | median ns | best ns | ratio of medians | ratio of bests | target |\n")
	fmt.Fprintln(w, "|---|---:|---:|---:|---:|---:|---|")
	for _, n := range r.Notified {
		bare, ratios := "", "| "
		if n.Bare > 0 {
			bare = fmt.Sprintf("%.0f", n.Bare)
		} else {
			ratios = fmt.Sprintf("%.2f × | %.2f ×", n.Median/base.Median, n.Best/base.Best)
		}
		fmt.Fprintf(w, "| %s | %s | %.0f | %.0f | %s | %s |\n", n.Name, bare, n.Median, n.Best, ratios, n.Target)
	}
	fmt.Fprintf(w, "\n| %d threads at once | p50 µs | p99 µs | p50 to C | p99 to C |\n|---|---:|---:|---:|---:|\n", crowdThreads)
	for _, c := range r.Crowds {
		fmt.Fprintf(w, "| %s | %.0f | %.0f | %.2f × | %.2f × |\n", c.Name, c.P50/1e3, c.P99/1e3, c.P50/r.Crowds[0].P50, c.P99/r.Crowds[0].P99)
	}
}

// traffic writes what the network gets done. A ratio below 1 is worse than bare.
func (r *Report) traffic(w io.Writer) {
	fmt.Fprintf(w, "\n| network | unit | bare | inside | ratio | target |\n|---|---|---:|---:|---:|---|\n")
	for _, t := range r.Traffic {
		if t.Gap != "" {
			fmt.Fprintf(w, "| %s | not measured: %s | | | | |\n", t.Name, t.Gap)
			continue
		}
		share := t.Inside / t.Bare
		if !t.Higher {
			share = t.Bare / t.Inside
		}
		fmt.Fprintf(w, "| %s | %s | %.4g | %.4g | %.2f | %s |\n", t.Name, t.Unit, t.Bare, t.Inside, share, t.Target)
	}
}

// http writes what the proxy costs. Ratios are medians of those of each round, and above 1 better than nginx or bare.
func (r *Report) http(w io.Writer) {
	if len(r.HTTP.Traffic) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| HTTP | unit | %s | %s | %s | %s | to bare | to nginx | target |\n|---|---|---:|---:|---:|---:|---:|---:|---|\n",
		sideBare, sideOurs, sideNginx, sideDefault)
	for _, row := range r.HTTP.Traffic {
		fmt.Fprintf(w, "| %s | %s |", row.Name, row.Unit)
		for _, side := range []string{sideBare, sideOurs, sideNginx, sideDefault} {
			samples := row.Samples[side]
			switch {
			case len(samples) == 0:
				fmt.Fprintf(w, " |")
			case row.Added && side != sideBare:
				fmt.Fprintf(w, " +%.4g |", median(row.above(side)))
			default:
				fmt.Fprintf(w, " %.4g |", median(samples))
			}
		}
		for _, side := range []string{sideBare, sideNginx} {
			if len(row.Samples[side]) == 0 || row.Added && side == sideBare {
				fmt.Fprintf(w, " |")
				continue
			}
			fmt.Fprintf(w, " %.2f |", median(row.ratios(side)))
		}
		fmt.Fprintf(w, " %s |\n", row.Target)
	}
	for _, m := range r.HTTP.Memory {
		fmt.Fprintf(w, "\n| resident with %s | |\n|---|---:|\n", m.Name)
		for _, who := range slices.Sorted(maps.Keys(m.Bytes)) {
			fmt.Fprintf(w, "| %s | %s |\n", who, mebibytes(m.Bytes[who]))
		}
	}
	if len(r.HTTP.Starts) > 0 {
		base := r.HTTP.Starts[0].Samples.Quantile(0.5)
		fmt.Fprintf(w, "\n| start `%s` | p50 ms | p95 ms | ratio |\n|---|---:|---:|---:|\n", command)
		for _, s := range r.HTTP.Starts {
			p50 := s.Samples.Quantile(0.5)
			fmt.Fprintf(w, "| %s | %.2f | %.2f | %.2f × |\n", s.Name, inMillis(p50), inMillis(s.Samples.Quantile(0.95)), ratio(p50, base))
		}
	}
}

// above is what a side adds to bare.
func (t *Web) above(side string) (list []float64) {
	for i, v := range t.Samples[side] {
		list = append(list, v-t.Samples[sideBare][i])
	}
	return list
}

// ratios are those of ours to another side.
func (t *Web) ratios(side string) (list []float64) {
	ours, others := t.Samples[sideOurs], t.Samples[side]
	if t.Added {
		ours, others = t.above(sideOurs), t.above(side)
	}
	for i := range ours {
		if t.Higher {
			list = append(list, ours[i]/others[i])
		} else {
			list = append(list, others[i]/ours[i])
		}
	}
	return list
}

func (r *Report) p50(name string) time.Duration {
	i := slices.IndexFunc(r.Starts, func(s Start) bool { return s.Name == name })
	if i < 0 {
		return 0
	}
	return r.Starts[i].Samples.Quantile(0.5)
}

func (r *Report) startTarget(name string) string {
	if name == ourStart {
		return "≤ 1.45 ×, p95 ≤ 2 × p50, faster than every peer"
	}
	return ""
}

func (r *Report) save(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func host() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return runtime.GOARCH
	}
	return fmt.Sprintf("Linux %s %s, %d CPUs, %s", unix.ByteSliceToString(name.Release[:]), runtime.GOARCH,
		runtime.NumCPU(), strings.TrimPrefix(runtime.Version(), "go"))
}

func inMillis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", inMillis(d)) }

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
