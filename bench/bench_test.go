package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var samples Samples
	for i := 100; i > 0; i-- {
		samples = append(samples, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.95: 96, 1: 100} {
		if got := samples.Quantile(q); got != want {
			t.Errorf("quantile %v = %d, want %d", q, got, want)
		}
	}
	if got := (Samples{}).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %v, want 0", got)
	}
}

func TestMarkdownShowsRatiosAndGaps(t *testing.T) {
	r := Report{
		Starts: []Start{
			{Name: yardstick, Samples: Samples{2 * time.Millisecond}},
			{Name: ourStart, Samples: Samples{3 * time.Millisecond}},
		},
		Calls: []Call{{Name: "getppid", Bare: 100, Filtered: 103, Inside: 104, Target: "≤ 1.05 ×"}},
		Notified: []Notified{
			{Name: leastLoop, Median: 5000, Best: 4000},
			{Name: ourLoop, Median: 6000, Best: 5200, Target: "≤ 1.3 ×"},
			{Name: "listen", Bare: 300, Median: 9000, Best: 8000},
		},
		Crowds: []Crowd{{Name: leastLoop, P50: 300e3, P99: 900e3}, {Name: ourLoop, P50: 360e3, P99: 990e3}},
		Gaps:   []string{"firejail (not found)"},
	}
	var text strings.Builder
	r.markdown(&text)
	for _, want := range []string{
		"| sandlock-exec | 3.00 | 3.00 | 1.00 | 1.50 × | 1 | ≤ 1.45 ×",
		"| firejail (not found) | not measured |",
		"| getppid | 100.0 | 103.0 | 104.0 | 1.040 × | 1.010 × | ≤ 1.05 × |",
		"| getppid, our loop |  | 6000 | 5200 | 1.20 × | 1.30 × | ≤ 1.3 × |",
		"| listen | 300 | 9000 | 8000 | |  |  |",
		"| getppid, our loop | 360 | 990 | 1.20 × | 1.10 × |",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
}

func TestViewMarkdown(t *testing.T) {
	start := func(name, against string, took time.Duration) ViewStart {
		return ViewStart{Start: Start{Name: name, Samples: Samples{took}}, Against: against, Target: "≤ 1.0 ×"}
	}
	r := Report{View: View{
		Starts: []ViewStart{start("ours", "theirs", 3*time.Millisecond), start("theirs", "", 4*time.Millisecond), start("alone", "missing", time.Millisecond)},
		Calls:  []Call{{Name: "find /usr", Bare: 100, Filtered: 101, Inside: 102, Target: "≤ 1.03 ×"}},
		Gaps:   []string{"missing (not found)"},
	}}
	var text strings.Builder
	r.view(&text)
	for _, want := range []string{
		"| ours | 3.00 | 3.00 | theirs | 0.75 × | 1 | ≤ 1.0 × |",
		"| alone | 1.00 | 1.00 | missing |  | 1 |",
		"| missing (not found) | not measured |",
		"| find /usr | 100.0 | 101.0 | 102.0 | 1.020 × | 1.010 × | ≤ 1.03 × |",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	text.Reset()
	(&Report{}).view(&text)
	if text.Len() > 0 {
		t.Errorf("a run without namespaces prints %q", text.String())
	}
}

func TestBranchMarkdown(t *testing.T) {
	r := Report{Branches: Branches{
		Ground: "a disk",
		Starts: []ViewStart{
			{Start: Start{Name: "ours", Samples: Samples{3 * time.Millisecond}}, Against: "theirs", Target: "≤ 1.05 ×"},
			{Start: Start{Name: "theirs", Samples: Samples{2 * time.Millisecond}}},
		},
		Work: []Work{{Name: "tar x", Target: "≥ 0.9", Samples: map[string][]float64{
			// By rounds the speeds are 0.5, 0.8 and 0.9, whatever that of the medians is.
			sideBare: {1e6, 4e6, 9e6}, sidePlain: {1e6, 4e6, 9e6}, sideBranch: {2e6, 5e6, 10e6}, sideFuse: {10e6},
		}}},
		Commits: []Commit{{Name: "new", Files: 10, Target: "≤ 2 ×", Took: []float64{3e6}, Copy: []float64{2e6}, CopyEach: []float64{4e6}}},
		Gaps:    []string{"missing (not found)"},
	}}
	var text strings.Builder
	r.branches(&text)
	for _, want := range []string{
		"| ours | 3.00 | 3.00 | theirs | 1.50 × | 1 | ≤ 1.05 × |",
		"| work on a disk, speed",
		"| tar x | 4 | 1.00 | 0.80 | | 0.10 | | | ≥ 0.9 |",
		"| commit of 10 files |",
		"| new | 2 | 4 | 3 | 1.50 × | 0.75 × | ≤ 2 × |",
		"not measured: missing (not found)",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	text.Reset()
	(&Report{}).branches(&text)
	if text.Len() > 0 {
		t.Errorf("a run without branches prints %q", text.String())
	}
}

// The program that is built of the packages must change with each round, or there would be nothing to compile.
func TestModule(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module bench\n\ngo 1.24\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for round := range 2 {
		if err := writeModule(filepath.Join(dir, "module"), 2, round); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "run", "./module")
		cmd.Dir = dir
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		said[string(text)] = true
	}
	if len(said) != 2 {
		t.Errorf("two rounds print %v", said)
	}
}

func TestSharesMarkdown(t *testing.T) {
	var text strings.Builder
	sharesMarkdown(&text, []Share{{Load: "loop", Got: map[int]float64{10: 10.04, 50: 49.96, 90: 90, 100: 99.9}}})
	if want := "| loop | 10.0 | 50.0 | 90.0 | 99.9 |\n"; !strings.HasSuffix(text.String(), want) {
		t.Errorf("got\n%s, want it to end in %s", text.String(), want)
	}
}

func TestHTTPMarkdown(t *testing.T) {
	r := Report{HTTP: HTTP{
		Traffic: []Web{
			{Name: "requests", Unit: "requests/s", Higher: true, Target: "≥ 0.5", Samples: map[string][]float64{
				// By rounds the ratios to nginx are 0.5, 0.6 and 0.7, whatever those of the medians are.
				sideBare: {100, 100, 100}, sideOurs: {25, 60, 28}, sideNginx: {50, 100, 40},
			}},
			{Name: "added", Unit: "µs", Added: true, Samples: map[string][]float64{
				sideBare: {10}, sideOurs: {30}, sideNginx: {20}, sideDefault: {50},
			}},
		},
		Memory: []Memory{{Name: "nothing", Bytes: map[string]int64{"helper": 3 << 20}}},
		Starts: []Start{{Name: startNetwork, Samples: Samples{2 * time.Millisecond}}, {Name: startHTTP, Samples: Samples{5 * time.Millisecond}}},
	}}
	var text strings.Builder
	r.http(&text)
	for _, want := range []string{
		"| requests | requests/s | 100 | 28 | 50 | | 0.28 | 0.60 | ≥ 0.5 |",
		"| added | µs | 10 | +20 | +10 | +40 | | 0.50 |  |",
		"| helper | 3.0 MiB |",
		"| http rules, no TLS | 5.00 | 5.00 | 2.50 × |",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
}
