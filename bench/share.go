package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// Share is what limits.cpu makes of one way to use processors: percent of one core that it got, by limit. Limit 100 is none.
type Share struct {
	Load string
	Got  map[int]float64
}

var (
	shareLimits = []int{10, 50, 90, 100}
	// shareLoads are sub-commands of the probe, see exec/exectest/probe/burn.go.
	shareLoads = []struct{ name, attempt string }{
		{"one busy process", "burn-loop"},
		{"two busy processes", "burn-pair"},
		{"a child with a session of its own", "burn-session"},
		{"one short process after the other", "burn-chain"},
		{"the same, whose parent discards them (without fork and exec)", "burn-discarded"},
		{"nice 19", "burn-nice"},
		{"with a sibling that sends SIGCONT (the sibling's part not counted)", "burn-continued"},
	}
)

// shareTime is how long each load runs, in milliseconds.
const shareTime = "5000"

// measureShares runs each load under each limit, one at a time.
func (w workshop) measureShares() ([]Share, error) {
	artifacts := map[int]string{}
	for _, limit := range shareLimits {
		name := w.path(fmt.Sprintf("share%d", limit))
		text := fmt.Sprintf("filesystem: read: [\"/usr\", \"/lib\", {path: \"/lib64\", optional: true}, \"/bin\", %q]\nlimits: cpu: %d\n",
			w.path("probe"), limit)
		if err := os.WriteFile(name+".cue", []byte(text), 0o644); err != nil {
			return nil, err
		}
		if err := run(w.path("sandlock-compile"), name+".cue", "-o", name+".sbx"); err != nil {
			return nil, err
		}
		artifacts[limit] = name + ".sbx"
	}
	var shares []Share
	for _, load := range shareLoads {
		s := Share{Load: load.name, Got: map[int]float64{}}
		for _, limit := range shareLimits {
			argv := []string{w.path("sandlock-exec"), artifacts[limit], "--", w.path("probe/probe"), load.attempt, shareTime}
			text, err := exec.Command(argv[0], argv[1:]...).Output()
			if err != nil {
				return nil, fmt.Errorf("%v: %w", argv, err)
			}
			var used, took float64
			if _, err := fmt.Sscanf(string(text), "value %f %f", &used, &took); err != nil {
				return nil, fmt.Errorf("%v printed %q", argv, text)
			}
			s.Got[limit] = 100 * used / took
		}
		shares = append(shares, s)
	}
	return shares, nil
}

func sharesMarkdown(w io.Writer, shares []Share) {
	head, rule := "| percent of one core under `limits.cpu` |", "|---|"
	for _, limit := range shareLimits {
		column := strconv.Itoa(limit)
		if limit == 100 {
			column = "none"
		}
		head, rule = head+" "+column+" |", rule+"---:|"
	}
	fmt.Fprintf(w, "%s\n%s\n", head, rule)
	for _, s := range shares {
		fmt.Fprintf(w, "| %s |", s.Load)
		for _, limit := range shareLimits {
			fmt.Fprintf(w, " %.1f |", s.Got[limit])
		}
		fmt.Fprintln(w)
	}
}
