package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	flat, leak := &subject{name: "flat"}, &subject{name: "leak"}
	for i := range 3 * samplesPerEnd {
		flat.samples = append(flat.samples, sample{descriptors: 10 + i%7, threads: 5, resident: 5000 + 1000*(i%9)})
		leak.samples = append(leak.samples, sample{descriptors: 10 + i, threads: 5, resident: 5000})
	}
	var text strings.Builder
	if !report(&text, []*subject{flat}) {
		t.Errorf("a process that does not grow is said to:\n%s", text.String())
	}
	for name, s := range map[string]*subject{"leak": leak, "too few samples": {name: "new"}} {
		if report(&text, []*subject{s}) {
			t.Errorf("%s: not found", name)
		}
	}
	if !strings.Contains(text.String(), "| leak | 10 → 30 |") || !strings.Contains(text.String(), "GREW") {
		t.Errorf("the leak is not in\n%s", text.String())
	}
}

func TestField(t *testing.T) {
	status := []byte("Name:\tx\nThreads:\t7\nVmRSS:\t  1234 kB\n")
	if got, threads := field(status, "VmRSS:"), field(status, "Threads:"); got != 1234 || threads != 7 {
		t.Errorf("VmRSS %d, Threads %d; want 1234 and 7", got, threads)
	}
}
