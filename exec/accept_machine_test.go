package exec_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// machine is policy B with the host's /proc and /sys and further fields of the section limits.
func machine(more string) exectest.Grants {
	return exectest.Grants{
		Read: []string{"/proc", "/sys"}, Write: []string{"/dev/null"},
		More: "filesystem: proc: \"host\"\nlimits: {" + more + "}",
	}
}

// bigMachine skips a test where one CPU or 1 GiB is no limit.
func bigMachine(t *testing.T, b *exectest.Box) {
	t.Helper()
	var host unix.Sysinfo_t
	if err := unix.Sysinfo(&host); err != nil {
		t.Fatal(err)
	}
	if got := b.Control("affinity"); !strings.Contains(got, ",") || uint64(host.Totalram)*uint64(host.Unit) < 3<<29 {
		t.Skipf("needs two processors and 1.5 GiB, has %q and %d MiB", got, uint64(host.Totalram)*uint64(host.Unit)>>20)
	}
}

const memTotal = "1048576" // kB

func Test_supervisor_8_26_27_machine_files(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		bigMachine(t, b)
		limited, host := b.Policy(b.Base(machine(`num_cpus: 1, memory: "1G"`))), b.Policy(b.Base(machine(`num_cpus: 1, memory: "1G", machine_files: "host"`)))
		for _, tc := range []struct{ name, program, script, want string }{
			{"cpuinfo", "/usr/bin/grep", "grep -c ^processor /proc/cpuinfo", "1"},
			{"stat", "/usr/bin/grep", "grep -c '^cpu[0-9]' /proc/stat", "1"},
			{"online", "/usr/bin/cat", "cat /sys/devices/system/cpu/online", "0"},
			{"possible", "/usr/bin/cat", "cat /sys/devices/system/cpu/possible", "0"},
			{"present", "/usr/bin/cat", "cat /sys/devices/system/cpu/present", "0"},
			{"meminfo", "/usr/bin/grep", "grep MemTotal: /proc/meminfo", "MemTotal:        " + memTotal + " kB"},
			{"nproc", "/usr/bin/nproc", "nproc --all", "1"},
			{"free", "/usr/bin/free", "free -m | { read a; read a total b; echo $total; }", "1024"},
			{"python_cpus", "/usr/bin/python3", "python3 -c 'import os; print(os.sysconf(\"SC_NPROCESSORS_CONF\"), open(\"/proc/cpuinfo\").read().count(\"processor\"))'", "1 1"},
			{"python_memory", "/usr/bin/python3", "python3 -c 'print(open(\"/proc/meminfo\").readline().split()[1])'", memTotal},
			{"node_cpus", "/usr/bin/node", "node -p 'os.cpus().length'", "1"},
			{"node_memory", "/usr/bin/node", "node -p 'os.totalmem()'", "1073741824"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				exectest.Program(t, tc.program)
				b := b.In(t)
				wantRun(t, b.Sh(limited, tc.script), 0, tc.want)
				outside := b.Sh("", tc.script)
				if got := strings.TrimSpace(outside.Stdout); outside.Code != 0 || got == "" || got == tc.want {
					t.Errorf("outside: exit %d, %q, want something else than inside\n%s", outside.Code, got, outside.Stderr)
				}
				// The C library and Node.js ask calls as well, which the policy still has answered.
				if strings.Contains(tc.script, "/") {
					wantRun(t, b.Sh(host, tc.script), 0, strings.TrimSpace(outside.Stdout))
				}
			})
		}
		t.Run("go", func(t *testing.T) {
			b := b.In(t)
			for _, file := range []string{"/proc/meminfo", "/sys/devices/system/cpu/online"} {
				inside, outside := b.Attempt(limited, "read-file", file, "0", "2"), b.Control("read-file", file, "0", "2")
				if !strings.HasPrefix(inside, "value ") || strings.HasSuffix(file, "online") == (inside == outside) {
					t.Errorf("%s begins with %q, outside with %q", file, inside, outside)
				}
			}
			if got := b.Attempt(limited, "affinity"); got != "value 0" {
				t.Errorf("affinity: %q, which the files must agree with", got)
			}
		})
	})
}

// The memory that is in use follows the ledger, and no field says more than there is.
func Test_machine_files_are_consistent(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		bigMachine(t, b)
		policy := b.Policy(b.Base(machine(`num_cpus: 1, memory: "1G"`)))
		wantRun(t, b.Run(policy, py, "-c", `
def read(f):
    f.seek(0)
    return {l.split(":")[0]: int(l.split()[1]) for l in f}
kept = open("/proc/meminfo")
before = read(kept)
block = bytearray(200 << 20)
after = read(open("/proc/meminfo"))
print(all(v <= after["MemTotal"] for v in after.values()), after["SwapTotal"])
print(before["MemFree"] - after["MemFree"] >= 200 << 10, after["MemAvailable"] == after["MemFree"])
print(read(kept) == before)
one = [l.split() for l in open("/proc/stat") if l.startswith("cpu")]
print([l[0] for l in one], one[0][1:] == one[1][1:])
`), 0, "True 0\nTrue True\nTrue\n['cpu', 'cpu0'] True")
	})
}

// A file is what a path leads to.
func Test_machine_files_under_other_names(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		bigMachine(t, b)
		b.Link("/proc/meminfo", b.Work+"/link")
		b.Link("link", b.Work+"/chain")
		b.Link("/proc", b.Work+"/proc")
		b.Link("/proc/self/root/proc/meminfo", b.Work+"/magic")
		limits := machine(`memory: "1G"`)
		policy := b.Policy(b.Base(limits))
		// Where files can be written, openat2 is withheld.
		readable := b.Policy(fmt.Sprintf(`filesystem: {read: ["/usr", "/lib", "/bin", "/proc", %q, {path: "/lib64", optional: true}], proc: "host"}
			limits: memory: "1G"`, strings.TrimSuffix(b.Probe, "/probe")))
		for _, tc := range []struct {
			policy string
			args   []string
		}{
			{policy, []string{"second-word", "/", "/proc/meminfo"}},
			{policy, []string{"second-word", "/", "//proc/./sys/../meminfo"}},
			{policy, []string{"second-word", "/", "/proc/self/../meminfo"}},
			{policy, []string{"second-word", "/", "/proc/thread-self/root/proc/meminfo"}},
			{policy, []string{"second-word", "/proc", "meminfo"}},
			{policy, []string{"second-word", "/proc", "self/root/proc/meminfo"}},
			{policy, []string{"second-word", "/proc/sys", "../meminfo"}},
			{policy, []string{"second-word", b.Work, "link"}},
			{policy, []string{"second-word", b.Work, "chain"}},
			{policy, []string{"second-word", b.Work, "proc/meminfo"}},
			{policy, []string{"second-word", b.Work, "magic"}},
			{policy, []string{"second-word-reopened", "/proc/meminfo"}},
			{readable, []string{"second-word", "/proc", "meminfo", "none"}},
			{readable, []string{"second-word", "/proc", "meminfo", "beneath,no_symlinks,no_xdev"}},
			{readable, []string{"second-word", "/proc", "/meminfo", "in_root"}},
		} {
			want := "value " + memTotal
			if got := b.Attempt(tc.policy, tc.args...); got != want {
				t.Errorf("%q: %q, want %q", tc.args, got, want)
			}
			if got := b.Control(tc.args...); got == want || !strings.HasPrefix(got, "value ") {
				t.Errorf("%q outside: %q, want the host's", tc.args, got)
			}
		}
		checkAllowed(t, b, readable, []allowed{
			{"beneath", []string{"second-word", "/proc", "/proc/meminfo", "beneath"}, b.Control("second-word", "/proc", "/proc/meminfo", "beneath")},
		})
		checkAllowed(t, b, policy, []allowed{
			{"no_follow", []string{"read-file", b.Work + "/link", fmt.Sprint(unix.O_NOFOLLOW), "1"}, "errno ELOOP (open)"},
			{"directory", []string{"openat", "/proc/meminfo", "d"}, "errno ENOTDIR"},
			{"written", []string{"openat", "/proc/meminfo", "w"}, "errno EACCES"},
			{"read_and_written", []string{"openat", "/proc/meminfo", "rw"}, "errno EACCES"},
			{"named", []string{"openat", "/proc/meminfo", "x"}, "ok"},
			{"missing", []string{"openat", "/proc/memory", "r"}, "errno ENOENT"},
		})
		if !u.Root() {
			return
		}
		for name, mount := range map[string]string{
			"bind": "mount --bind /proc/meminfo file", "bind_directory": "mkdir dir; mount --bind /proc dir", "procfs": "mkdir own; mount -t proc proc own",
		} {
			t.Run(name, func(t *testing.T) {
				b.File(b.Work+"/file", "")
				o := b.Opts(policy, "/bin/sh", "-c", "cat file dir/meminfo own/meminfo 2>/dev/null | { read name total unit; echo $total; }")
				o.PrivateMounts, o.Wrap = true, []string{"/bin/sh", "-ec", mount + ` && exec "$0" "$@"`}
				wantRun(t, exectest.Run(t, o), 0, memTotal)
			})
		}
	})
}

// What the policy does not grant is not shown either.
func Test_machine_files_open_nothing(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		bigMachine(t, b)
		policy := b.Policy(b.Base(exectest.Grants{Read: []string{"/proc/cpuinfo"}, More: `limits: {num_cpus: 1, memory: "1G"}`}))
		wantRun(t, b.Sh(policy, "grep -c ^processor /proc/cpuinfo"), 0, "1")
		wantFailure(t, b.Sh(policy, "cat /proc/meminfo"), "Permission denied")
		wantFailure(t, b.Sh(policy, "cat /sys/devices/system/cpu/online"), "Permission denied")
		wantRun(t, b.Sh("", "cat /proc/meminfo /sys/devices/system/cpu/online >/dev/null"), 0, "")
	})
}

// Rules decide before anything is shown; the supervisor then opens files itself where a path matters.
func Test_machine_files_and_rules(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		bigMachine(t, b)
		show := "grep -c ^processor /proc/cpuinfo; cat /proc/thread-self/root/proc/meminfo | { read name total unit; echo $total; }"
		for name, tc := range map[string]struct{ rules, want string }{
			"none":    {"", "1\n" + memTotal},
			"by_call": {`{on: ["open"], then: "audit"}`, "1\n" + memTotal},
			"by_path": {`{on: ["open"], if: path: "/proc/version", then: "deny"}`, "1\n" + memTotal},
			"refused": {`{on: ["open"], if: path: "/proc/meminfo", then: "deny"}`, "1"},
			"closed":  {`{on: ["execve"], do: [{deny_path: "/proc/cpuinfo"}]}`, memTotal},
		} {
			t.Run(name, func(t *testing.T) {
				g := machine(`num_cpus: 1, memory: "1G"`)
				g.More += "\nrules: [" + tc.rules + "]"
				r := b.In(t).Sh(b.Policy(b.Base(g)), show)
				if got := strings.TrimSpace(r.Stdout); got != tc.want {
					t.Errorf("printed %q, want %q\n%s", got, tc.want, r.Stderr)
				}
			})
		}
	})
}

// A callback runs outside of the loop, and the file is made of what the loop knows.
func Test_machine_files_and_a_callback(t *testing.T) {
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		bigMachine(t, b)
		g := machine(`num_cpus: 1, memory: "1G"`)
		g.More += "\nrules: [{on: [\"open\"], then: \"audit\"}]"
		c := load(t, b, g).Command(bounded(t), "/bin/sh", "-c", "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo")
		if err := c.OnEvent(func(exec.Event) exec.Outcome { return exec.Outcome{} }); err != nil {
			t.Fatal(err)
		}
		wantOutput(t, c, "1\nMemTotal:        "+memTotal+" kB\n")
	})
}

// One notified open serves the seed, the machine and whoever has denials explained.
func Test_machine_files_and_a_seed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		bigMachine(t, b)
		g := machine(`num_cpus: 1, memory: "1G"`)
		g.More += "\ndeterminism: random_seed: 1"
		o := b.Opts(b.Policy(b.Base(g)), "/bin/sh", "-c", "grep -c ^processor /proc/cpuinfo; grep MemTotal: /proc/meminfo; od -A n -N 8 -t x1 /dev/urandom")
		one := exectest.Run(t, o)
		o.Flags = []string{"--explain-denials"}
		two := exectest.Run(t, o)
		if one.Code != 0 || one.Stdout != two.Stdout || !strings.HasPrefix(one.Stdout, "1\nMemTotal:        "+memTotal+" kB\n ") {
			t.Errorf("exit %d, %q, then %q\n%s", one.Code, one.Stdout, two.Stdout, one.Stderr)
		}
	})
}

// A machine that is told to have fewer processors has the command's own.
func Test_machine_files_follow_the_cores(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		bigMachine(t, b)
		online, err := os.ReadFile("/sys/devices/system/cpu/online")
		if err != nil || !strings.HasPrefix(string(online), "0-") {
			t.Skipf("needs CPUs 0 and 1, has %q: %v", online, err)
		}
		policy := b.Policy(b.Base(machine("num_cpus: 1, cpu_cores: [1]")))
		wantRun(t, b.Sh(policy, "cat /sys/devices/system/cpu/online; grep ^processor /proc/cpuinfo; grep -o '^cpu[0-9]*' /proc/stat; nproc"), 0, "1\nprocessor\t: 1\ncpu\ncpu1\n1")
	})
}
