package machine

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
)

const twoPackages = `processor	: 0
physical id	: 0
siblings	: 2
cpu cores	: 2

processor	: 1
physical id	: 0
siblings	: 2
cpu cores	: 2

processor	: 2
physical id	: 1
siblings	: 1
cpu cores	: 1

`

func TestCPUInfo(t *testing.T) {
	block := func(n, pkg, cores string) string {
		return "processor\t: " + n + "\nphysical id\t: " + pkg + "\nsiblings\t: " + cores + "\ncpu cores\t: " + cores + "\n\n"
	}
	for _, tc := range []struct {
		name string
		host string
		mask []byte
		n    int
		want string // "": an error
	}{
		{"first", twoPackages, []byte{7}, 1, block("0", "0", "1")},
		{"of each package", twoPackages, []byte{6}, 2, block("1", "0", "1") + block("2", "1", "1")},
		{"pinned, so one more", twoPackages, []byte{4}, 2, block("0", "0", "1") + block("2", "1", "1")},
		{"all", twoPackages, []byte{7}, 3, twoPackages},
		{"more than there are", twoPackages, []byte{7}, 100, twoPackages},
		{"arm64", "processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\nBogoMIPS\t: 50.00\n\n", []byte{3}, 1, "processor\t: 0\nBogoMIPS\t: 50.00\n\n"},
		{"with a part about no processor", "processor\t: 0\n\nprocessor\t: 1\n\nHardware\t: board\n", []byte{3}, 1, "processor\t: 0\n\nHardware\t: board\n"},
		{"no end of line", "processor: 0", []byte{1}, 1, "processor: 0"},
		{"none", "cpu: 0\n", []byte{1}, 1, ""},
		{"empty", "", []byte{1}, 1, ""},
		{"a number that no CPU has", "processor: 8192\n", []byte{1}, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := cpuinfo([]byte(tc.host), choose(tc.mask, tc.n))
			if string(got) != tc.want || (err != nil) != (tc.want == "") {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestStat(t *testing.T) {
	const host = "cpu  111 222\ncpu0 1 2\ncpu1 10 20\ncpu2 100 200\nintr 5 6\nbtime 7\n"
	for _, tc := range []struct {
		name string
		host string
		mask []byte
		n    int
		want string
	}{
		{"first", host, []byte{7}, 1, "cpu  1 2\ncpu0 1 2\nintr 5 6\nbtime 7\n"},
		{"those of the mask", host, []byte{6}, 2, "cpu  110 220\ncpu1 10 20\ncpu2 100 200\nintr 5 6\nbtime 7\n"},
		{"all", host, []byte{7}, 3, host},
		{"lines of other lengths", "cpu 9\ncpu0 1 2\ncpu1 3\n", []byte{3}, 2, "cpu  4 2\ncpu0 1 2\ncpu1 3\n"},
		{"no number", "cpu0 x\n", []byte{1}, 1, ""},
		{"no processor", "intr 1\n", []byte{1}, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := stat([]byte(tc.host), choose(tc.mask, tc.n))
			if string(got) != tc.want || (err != nil) != (tc.want == "") {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestCPUList(t *testing.T) {
	for _, tc := range []struct {
		host string
		mask []byte
		n    int
		want string
	}{
		{"0-3\n", []byte{0xff}, 2, "0-1\n"},
		{"0-3\n", []byte{0xc}, 2, "2-3\n"},
		{"0-3\n", []byte{0xc}, 3, "0,2-3\n"},
		{"0,2,4-7", []byte{0x55}, 4, "0,2,4,6\n"},
		{"0-8191", []byte{1}, 8192, "0-8191\n"},
		{"5", nil, 1, "5\n"},
		{"\n", []byte{1}, 1, "\n"},
		{"0-8192\n", []byte{1}, 1, ""},
		{"3-0\n", []byte{1}, 1, ""},
		{"0-3,2\n", []byte{1}, 1, ""},
		{"a\n", []byte{1}, 1, ""},
		{"0,\n", []byte{1}, 1, ""},
	} {
		got, err := cpuList([]byte(tc.host), choose(tc.mask, tc.n))
		if string(got) != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("first %d of %q with %x: %q, %v, want %q", tc.n, tc.host, tc.mask, got, err, tc.want)
		}
	}
}

func TestMeminfo(t *testing.T) {
	const host = "MemTotal:       24684084 kB\nMemFree:        23849484 kB\nMemAvailable:   24245724 kB\nCached:           433876 kB\n" +
		"Active(anon):       1924 kB\nVmallocTotal:   34359738367 kB\nHugePages_Total:       3\nHugepagesize:       2048 kB\n"
	for _, tc := range []struct {
		name        string
		limit, used uint64
		want        string
	}{
		{"some is used", 64 << 20, 4 << 20, "MemTotal:          65536 kB\nMemFree:           61440 kB\nMemAvailable:      61440 kB\nCached:                0 kB\n" +
			"Active(anon):       4096 kB\nVmallocTotal:          0 kB\nHugePages_Total:        0\nHugepagesize:       2048 kB\n"},
		{"more is used than there is", 1 << 20, 4 << 20, "MemTotal:           1024 kB\nMemFree:               0 kB\nMemAvailable:          0 kB\nCached:                0 kB\n" +
			"Active(anon):       1024 kB\nVmallocTotal:          0 kB\nHugePages_Total:        0\nHugepagesize:       1024 kB\n"},
		{"more than the host has", 1 << 60, 0, "MemTotal:       24684084 kB\nMemFree:        24684084 kB\nMemAvailable:   24684084 kB\nCached:                0 kB\n" +
			"Active(anon):          0 kB\nVmallocTotal:          0 kB\nHugePages_Total:        0\nHugepagesize:       2048 kB\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := meminfo([]byte(host), tc.limit, tc.used)
			if string(got) != tc.want || err != nil {
				t.Errorf("got\n%s, %v, want\n%s", got, err, tc.want)
			}
		})
	}
	for _, bad := range []string{"", "MemFree: 1 kB\n", "MemTotal: 1 kB\nx\n", "MemTotal: -1 kB\n", "MemTotal: 99999999999999999999 kB\n", ": 1\n"} {
		if got, err := meminfo([]byte(bad), 1, 0); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

// This host's own files are understood, and need no change where nothing is limited.
func TestFilesOfThisHost(t *testing.T) {
	all := choose(nil, maxMask*8)
	for path, write := range map[string]func([]byte, choice) ([]byte, error){
		"/proc/cpuinfo": cpuinfo, "/proc/stat": stat, "/sys/devices/system/cpu/online": cpuList,
		"/sys/devices/system/cpu/possible": cpuList, "/sys/devices/system/cpu/present": cpuList,
	} {
		host, err := os.ReadFile(path)
		if err != nil {
			t.Logf("%v", err)
			continue
		}
		got, err := write(host, all)
		if strings.HasPrefix(path, "/proc/stat") { // the host sums before it rounds
			got, host = got[bytes.IndexByte(got, '\n'):], host[bytes.IndexByte(host, '\n'):]
		}
		if err != nil || !bytes.Equal(got, host) {
			t.Errorf("%s: %v, changed", path, err)
		}
	}
	host, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Skip(err)
	}
	got, err := meminfo(host, 64<<20, 1<<20)
	if err != nil || bytes.Count(got, []byte("\n")) != bytes.Count(host, []byte("\n")) {
		t.Errorf("%v\n%s", err, got)
	}
}

// Whatever stands in a host's file: what is made of it tells of no more than the limits leave.
func FuzzFiles(f *testing.F) {
	f.Add([]byte(twoPackages), []byte{7}, uint16(1))
	f.Add([]byte("cpu  3 3\ncpu0 1 2\ncpu1 2 1\nintr 5\n"), []byte{2}, uint16(1))
	f.Add([]byte("0-3,8\n"), []byte{0xff, 1}, uint16(3))
	f.Add([]byte("MemTotal: 8000 kB\nMemFree: 1 kB\nHugePages_Total: 3\n"), []byte{}, uint16(3))
	f.Fuzz(func(t *testing.T, host, mask []byte, limit uint16) {
		n := int(limit%64) + 1
		if got, err := cpuinfo(host, choose(mask, n)); err == nil {
			shown := map[int]bool{}
			for _, b := range bytes.SplitAfter(got, []byte("\n\n")) {
				if cpu, ok := cpuNumber(cpuField(b, "processor")); ok {
					shown[cpu] = true
				}
			}
			if len(shown) > n {
				t.Errorf("%d processors of %d in %q", len(shown), n, got)
			}
		}
		if got, err := stat(host, choose(mask, n)); err == nil {
			shown := map[int]bool{}
			for line := range bytes.Lines(got) {
				if cpu, ok := statCPU(line); ok {
					shown[cpu] = true
				}
			}
			if len(shown) > n {
				t.Errorf("%d processors of %d in %q", len(shown), n, got)
			}
		}
		if got, err := cpuList(host, choose(mask, n)); err == nil {
			cpus, err := parseCPUList(got)
			if err != nil || len(cpus) > n {
				t.Errorf("%v, %d processors of %d in %q", err, len(cpus), n, got)
			}
		}
		if got, err := meminfo(host, uint64(limit)<<10, 0); err == nil {
			for line := range bytes.Lines(got) {
				_, rest, _ := bytes.Cut(line, []byte(":"))
				v, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
				if err != nil || v > uint64(limit) {
					t.Errorf("%q of %d kB in all: %v", line, limit, err)
				}
			}
		}
	})
}
