// Command bench measures what a sandbox costs: starting one, calls inside it, compiling a policy, size and memory.
//
// In: the repository it runs in, and the peers that peers.sh installed. Out: a Markdown table on standard output and
// the samples as JSON in bench/out. It builds what it measures, runs the contenders in turn (A B C A B C …) so that
// whatever disturbs the machine disturbs all of them, and compares within one run only. Targets are printed beside
// the numbers; it never fails because of one, since no shared machine can be asked for a time.
//
// Read next: contenders.go (what is compared), start.go, calls.go, notified.go, http.go, view.go, branch.go, footprint.go, report.go; share.go stands alone,
// and soak is a program of its own.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	runs := flag.Int("runs", 200, "rounds of the start-up comparison; 0 leaves it out")
	out := flag.String("out", "bench/out", "folder for what is built and for the samples")
	network := flag.Bool("network", false, "measure connections, datagrams and redis, and nothing else")
	web := flag.Bool("http", false, "measure the HTTP proxy against nginx, and nothing else")
	view := flag.Bool("view", false, "measure starts in namespaces against bwrap, and work in them, and nothing else")
	branches := flag.Bool("branch", false, "measure branches of a working directory: starts, work in them, commits; and nothing else")
	share := flag.Bool("share", false, "measure what limits.cpu makes of several loads, and nothing else")
	flag.Parse()
	if err := bench(*runs, *out, *share, *network, *web, *view, *branches); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(runs int, out string, share, network, web, view, branches bool) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	w := workshop{out: out}
	if err := w.build(); err != nil {
		return err
	}
	if share {
		progress("shares of CPU time")
		shares, err := w.measureShares()
		if err != nil {
			return err
		}
		sharesMarkdown(os.Stdout, shares)
		return nil
	}
	report := Report{Host: host(), Runs: runs}
	if network {
		progress("network")
		if report.Traffic, err = w.measureTraffic(); err != nil {
			return err
		}
		report.traffic(os.Stdout)
		return nil
	}
	if web {
		if report.HTTP, err = w.measureHTTP(runs); err != nil {
			return err
		}
		report.http(os.Stdout)
		return report.save(filepath.Join(out, "http.json"))
	}
	if view {
		if report.View, err = w.measureView(runs); err != nil {
			return err
		}
		report.view(os.Stdout)
		return report.save(filepath.Join(out, "view.json"))
	}
	if branches {
		if report.Branches, err = w.measureBranches(runs); err != nil {
			return err
		}
		report.branches(os.Stdout)
		return report.save(filepath.Join(out, "branch.json"))
	}
	if runs > 0 {
		progress("start-up: %d rounds", runs)
		contenders, gaps := w.contenders()
		report.Gaps = gaps
		if report.Starts, err = measureStarts(contenders, runs); err != nil {
			return err
		}
	}
	progress("system calls")
	if report.Calls, err = w.measureCalls(); err != nil {
		return err
	}
	progress("notified calls")
	if report.Notified, err = w.measureNotified(); err != nil {
		return err
	}
	if report.Crowds, err = w.measureCrowds(); err != nil {
		return err
	}
	progress("network")
	if report.Traffic, err = w.measureTraffic(); err != nil {
		return err
	}
	if report.HTTP, err = w.measureHTTP(runs); err != nil {
		return err
	}
	if report.View, err = w.measureView(runs); err != nil {
		return err
	}
	if report.Branches, err = w.measureBranches(runs); err != nil {
		return err
	}
	progress("compiler, size and memory")
	if report.Single, err = w.measureFootprint(); err != nil {
		return err
	}
	report.markdown(os.Stdout)
	return report.save(filepath.Join(out, "samples.json"))
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
