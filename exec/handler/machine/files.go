package machine

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
)

// The host's files as programs of the smaller machine are to see them: proc(5), and cputopology and sysfs-devices-system-cpu in
// the kernel's Documentation. What the host's file has is kept in its order and form, so that parsers find what they know.
// A file that is not understood is reported, never handed out.

// choice says which of the CPUs that there are programs are told of.
type choice func(there []int) map[int]bool

// choose takes n CPUs: those of the mask first, so that the files agree with sched_getaffinity, then others in their order.
func choose(mask []byte, n int) choice {
	return func(there []int) map[int]bool {
		chosen := map[int]bool{}
		for _, own := range []bool{true, false} {
			for _, cpu := range there {
				if len(chosen) < n && inMask(mask, cpu) == own {
					chosen[cpu] = true
				}
			}
		}
		return chosen
	}
}

func inMask(mask []byte, cpu int) bool { return cpu/8 < len(mask) && mask[cpu/8]>>(cpu%8)&1 == 1 }

// cpuNumber reads the number of a CPU that the kernel can have.
func cpuNumber(text []byte) (int, bool) {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 32)
	return int(n), err == nil && n < maxMask*8
}

// cpuinfo leaves the chosen processors of /proc/cpuinfo, and says of a package that it has no more of them than that.
func cpuinfo(host []byte, choose choice) ([]byte, error) {
	blocks := bytes.SplitAfter(host, []byte("\n\n"))
	number := make([]int, len(blocks)) // -1: about no processor
	var there []int
	for i, b := range blocks {
		number[i] = -1
		if n, ok := cpuNumber(cpuField(b, "processor")); ok {
			number[i] = n
			there = append(there, n)
		}
	}
	if len(there) == 0 {
		return nil, fmt.Errorf("no processor in %d bytes", len(host))
	}
	chosen := choose(there)
	inPackage := map[string]int{}
	for i, b := range blocks {
		if chosen[number[i]] {
			inPackage[string(cpuField(b, "physical id"))]++
		}
	}
	var out []byte
	for i, b := range blocks {
		switch {
		case number[i] < 0:
			out = append(out, b...)
		case chosen[number[i]]:
			out = appendProcessor(out, b, inPackage[string(cpuField(b, "physical id"))])
		}
	}
	return out, nil
}

// appendProcessor appends a processor's block with counts of its neighbours that are at most n.
func appendProcessor(out, block []byte, n int) []byte {
	for line := range bytes.Lines(block) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		switch string(bytes.TrimSpace(key)) {
		case "siblings", "cpu cores":
			if v, err := strconv.Atoi(string(bytes.TrimSpace(value))); err == nil && v > n {
				line = fmt.Appendf(nil, "%s: %d\n", key, n)
			}
		}
		out = append(out, line...)
	}
	return out
}

// cpuField returns the value of a line of /proc/cpuinfo, nil for none.
func cpuField(block []byte, name string) []byte {
	for line := range bytes.Lines(block) {
		if key, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(key)) == name {
			return bytes.TrimSpace(value)
		}
	}
	return nil
}

// stat leaves the chosen processors of /proc/stat; their sum is the machine's.
func stat(host []byte, choose choice) ([]byte, error) {
	var there []int
	for line := range bytes.Lines(host) {
		if n, ok := statCPU(line); ok {
			there = append(there, n)
		}
	}
	if len(there) == 0 {
		return nil, fmt.Errorf("no processor in %d bytes", len(host))
	}
	chosen := choose(there)
	var sum []uint64
	for line := range bytes.Lines(host) {
		n, ok := statCPU(line)
		if !ok || !chosen[n] {
			continue
		}
		for i, text := range bytes.Fields(line)[1:] {
			v, err := strconv.ParseUint(string(text), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("a time of %q", text)
			}
			if i == len(sum) {
				sum = append(sum, 0)
			}
			sum[i] += v
		}
	}
	var out []byte
	for line := range bytes.Lines(host) {
		if n, ok := statCPU(line); ok && !chosen[n] {
			continue
		}
		if bytes.HasPrefix(line, []byte("cpu ")) {
			line = []byte("cpu ")
			for _, v := range sum {
				line = fmt.Appendf(line, " %d", v)
			}
			line = append(line, '\n')
		}
		out = append(out, line...)
	}
	return out, nil
}

// statCPU returns which processor a line of /proc/stat is about.
func statCPU(line []byte) (int, bool) {
	name, _, _ := bytes.Cut(line, []byte(" "))
	rest, ok := bytes.CutPrefix(name, []byte("cpu"))
	if !ok {
		return 0, false
	}
	return cpuNumber(rest)
}

// cpuList leaves the chosen CPUs of a list such as "0-3,8".
func cpuList(host []byte, choose choice) ([]byte, error) {
	there, err := parseCPUList(host)
	if err != nil {
		return nil, err
	}
	chosen := choose(there)
	there = slices.DeleteFunc(there, func(cpu int) bool { return !chosen[cpu] })
	var out []byte
	for i := 0; i < len(there); {
		last := i
		for last+1 < len(there) && there[last+1] == there[last]+1 {
			last++
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, int64(there[i]), 10)
		if last > i {
			out = strconv.AppendInt(append(out, '-'), int64(there[last]), 10)
		}
		i = last + 1
	}
	return append(out, '\n'), nil
}

// parseCPUList reads a list whose numbers ascend, as the kernel writes them (bitmap_print_to_pagebuf).
func parseCPUList(text []byte) (cpus []int, err error) {
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return nil, nil
	}
	for part := range bytes.SplitSeq(text, []byte(",")) {
		from, to, isRange := bytes.Cut(part, []byte("-"))
		if !isRange {
			to = from
		}
		first, ok := cpuNumber(from)
		last, ok2 := cpuNumber(to)
		if !ok || !ok2 || last < first || len(cpus) > 0 && first <= cpus[len(cpus)-1] {
			return nil, fmt.Errorf("a list of CPUs with %q", part)
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// meminfo writes /proc/meminfo anew for a machine of limit bytes, used of which are in use. All of that belongs to programs: there
// are no caches, no swap, and nothing that the kernel needs for itself.
func meminfo(host []byte, limit, used uint64) ([]byte, error) {
	amounts := map[string]uint64{} // kB
	hasTotal := false
	for line := range bytes.Lines(host) {
		name, value, ok := memoryLine(line)
		if !ok {
			return nil, fmt.Errorf("a line %q", bytes.TrimSpace(line))
		}
		if name == "MemTotal" {
			limit, hasTotal = min(limit, value<<10), true
		}
		if name == "Hugepagesize" {
			amounts[name] = value
		}
	}
	if !hasTotal {
		return nil, fmt.Errorf("no MemTotal in %d bytes", len(host))
	}
	used = min(used, limit)
	for _, name := range []string{"MemTotal", "CommitLimit"} {
		amounts[name] = limit >> 10
	}
	for _, name := range []string{"MemFree", "MemAvailable"} {
		amounts[name] = (limit - used) >> 10
	}
	for _, name := range []string{"Active", "Active(anon)", "AnonPages", "Committed_AS"} {
		amounts[name] = used >> 10
	}
	amounts["Hugepagesize"] = min(amounts["Hugepagesize"], limit>>10)
	var out []byte
	for line := range bytes.Lines(host) {
		name, _, _ := memoryLine(line)
		unit := ""
		if bytes.HasSuffix(bytes.TrimSpace(line), []byte(" kB")) {
			unit = " kB"
		}
		out = fmt.Appendf(out, "%-15s %8d%s\n", name+":", amounts[name], unit)
	}
	return out, nil
}

// memoryLine reads "MemTotal:  123 kB". Counts of pages have no unit.
func memoryLine(line []byte) (name string, value uint64, ok bool) {
	key, rest, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return "", 0, false
	}
	rest, _ = bytes.CutSuffix(bytes.TrimSpace(rest), []byte(" kB"))
	value, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 10, 54) // bytes fit 64 bits
	return string(key), value, err == nil && len(key) > 0
}
