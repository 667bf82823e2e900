package exec_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

const killedCode = 128 + int(syscall.SIGKILL)

func memory(size string) exectest.Grants {
	return exectest.Grants{Write: []string{"/dev/zero"}, More: fmt.Sprintf("limits: memory: %q", size)}
}

// wantMemoryKill wants the command to have been killed for the limit, and the executor to say so.
func wantMemoryKill(t *testing.T, r exectest.Result, size string) {
	t.Helper()
	want := fmt.Sprintf("killed: the sandbox reached limits.memory (%s)", size)
	if r.Code != killedCode || r.Stdout != "" || !strings.Contains(r.Stderr, want) {
		t.Errorf("exit %d, printed %q, want %d, nothing and %q\n%s", r.Code, r.Stdout, killedCode, want, r.Stderr)
	}
}

func Test_supervisor_8_18_memory(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := `
try:
    data = bytearray(200 << 20)
except MemoryError:
    print("refused")
print("allocated")`
		o := b.Opts(b.Policy(b.Base(memory("64M"))), py, "-c", script)
		log := b.Work + "/../audit"
		o.Flags = []string{"--audit", b.File(log, "")}
		wantMemoryKill(t, exectest.Run(t, o), "64M")
		line, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"event":"limit"`, `"rule":"limits.memory"`, `"verdict":"SIGKILL"`, ".cue:"} {
			if !strings.Contains(string(line), want) {
				t.Errorf("the audit file has no %s:\n%s", want, line)
			}
		}
		wantRun(t, b.Run(b.Policy(b.Base(exectest.Grants{})), py, "-c", script), 0, "allocated")
		wantRun(t, b.Run(b.Policy(b.Base(memory("512M"))), py, "-c", script), 0, "allocated")
	})
}

// What asks for memory in some way, more and less than there is. The probe's own runtime takes about 40 MB.
func Test_memory_requests(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		limited := b.Policy(b.Base(memory("128M")))
		for _, tc := range []struct {
			name string
			args []string
			want string
		}{
			{"private", []string{"mem-map", "30"}, "ok"},
			{"reservation", []string{"mem-map", "8192", "reserve"}, "ok"},
			{"fixed_over_itself", []string{"mem-map", "40", "fixed"}, "ok"},
			{"shared", []string{"mem-map", "30", "shared"}, "ok"},
			{"dev_zero", []string{"mem-map", "30", "zero"}, "ok"},
			{"protect", []string{"mem-protect", "30"}, "ok"},
			{"brk", []string{"mem-brk", "30"}, "ok"},
			{"remap", []string{"mem-remap", "30"}, "ok"},
			{"unmapped_is_free", []string{"mem-churn", "20", "50"}, "ok"},
			{"unmapped_shared_is_free", []string{"mem-churn", "20", "50", "shared"}, "ok"},
			{"failed_is_free", []string{"mem-failing", "30", "20"}, "ok"},
			{"closed_memfd_is_free", []string{"mem-memfd", "40", "4", "close"}, "ok"},
			{"threads_are_one_process", []string{"mem-threads", "0", "64"}, "ok"},
			{"forks_share", []string{"mem-forks", "40", "8", "1"}, "value killed=none"},
			{"impossible", []string{"call", "mmap", "0", "0x7000000000000000", "3", "0x22", "-1", "0"}, "errno ENOMEM"},
			{"overflow", []string{"call", "mmap", "0", "0xffffffffffffffff", "3", "0x22", "-1", "0"}, "errno ENOMEM"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				if got := b.In(t).Attempt(limited, tc.args...); got != tc.want {
					t.Errorf("%q, want %q", got, tc.want)
				}
			})
		}
	})
}

// Attempt 34: there is one cap, whichever way memory is asked for.
func Test_escape_34_memory(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		limited := b.Policy(b.Base(memory("128M")))
		// What grows without a call is noticed soon: the attempts wait for it, in the sandbox.
		const patience = "30"
		for _, tc := range []struct {
			name string
			args []string
		}{
			{"private", []string{"mem-map", "200"}},
			{"noreserve", []string{"mem-map", "200", "noreserve"}},
			{"shared", []string{"mem-map", "200", "shared"}},
			{"dev_zero_shared", []string{"mem-map", "200", "zero"}},
			{"growsdown", []string{"mem-map", "200", "growsdown"}},
			{"reservation_made_writable", []string{"mem-protect", "200"}},
			{"brk", []string{"mem-brk", "200"}},
			{"mremap", []string{"mem-remap", "200"}},
			{"filled_and_made_read_only", []string{"mem-readonly", "20", "10"}},
			{"shared_unmapped_but_a_page", []string{"mem-partial", "20", "10"}},
			{"dev_zero_unmapped_but_a_page", []string{"mem-partial", "20", "10", "zero"}},
			{"memfd", []string{"mem-memfd", "200", "1", "keep"}},
			{"memfds", []string{"mem-memfd", "40", "5", "keep"}},
			{"memfds_in_flight", []string{"mem-memfd", "40", "5", "hide"}},
			{"threads", []string{"mem-threads", "20", "64"}},
			{"first_thread_gone", []string{"mem-leaderless", "200"}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				b := b.In(t)
				args := append([]string{b.Probe}, tc.args...)
				if tc.args[0] == "mem-memfd" {
					args = append(args, patience)
				}
				wantMemoryKill(t, b.Run(limited, args...), "128M")
				if got := b.Control(tc.args...); got != "ok" {
					t.Errorf("outside: %q, want ok", got)
				}
			})
		}
		t.Run("memfd_that_looks_gone", func(t *testing.T) {
			t.Parallel()
			// Emptied and sealed: it can be written no more.
			b := b.In(t)
			args := []string{"mem-memfd", "40", "1", "unlock"}
			if got, want := b.Attempt(limited, args...), "errno EPERM (write)"; got != want && got != "signal 9" {
				t.Errorf("%q, want %q", got, want)
			}
			if got := b.Control(args...); got != "ok" {
				t.Errorf("outside: %q, want ok", got)
			}
		})
		for _, tc := range []struct {
			name            string
			inside, outside []string
		}{
			{"children", []string{"mem-children", "10", "10"}, []string{"mem-children", "10", "10"}},
			{"written_copies", []string{"mem-copies", "30", "8", patience}, []string{"mem-copies", "30", "8", "0"}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				b := b.In(t)
				r := b.Run(limited, append([]string{b.Probe}, tc.inside...)...)
				// The command itself may be the largest process.
				said := strings.Contains(r.Stderr, "the sandbox reached limits.memory (128M)")
				if !said || r.Code == 0 && r.Stdout != "value killed=some\n" {
					t.Errorf("exit %d, %q, want kills\n%s", r.Code, r.Stdout, r.Stderr)
				}
				if got := b.Control(tc.outside...); got != "value killed=none" {
					t.Errorf("outside: %q, want none killed", got)
				}
			})
		}
	})
}

const segmentsScript = `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
for _ in range(5):
    shm = libc.shmget(0, 40 << 20, 0o1600)
    if shm < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    libc.shmat(shm, None, 0)
    libc.shmctl(shm, 0, None)  # it goes with the process
print("all")`

func Test_escape_34_system_v_segments(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		lifted := `syscalls: extra_allow: ["sysv_ipc"]`
		limited := memory("128M")
		limited.More += "\n" + lifted
		wantMemoryKill(t, b.Run(b.Policy(b.Base(limited)), py, "-c", segmentsScript), "128M")
		wantRun(t, b.Run(b.Policy(b.Base(exectest.Grants{More: lifted})), py, "-c", segmentsScript), 0, "all")
	})
}

// A large program can start small ones, by whatever kind of fork.
func Test_memory_of_a_parent_is_not_charged_to_its_children(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := `
import os, subprocess, time
data = bytearray(b"x") * (300 << 20)
print(subprocess.check_output(["echo", "vfork"]).decode().strip())
print(subprocess.check_output(["echo", "fork"], preexec_fn=lambda: None).decode().strip())
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        small = [bytes(1000) for _ in range(10000)]
        time.sleep(0.5)
        os._exit(0)
    print(os.waitpid(pid, 0)[1])
pids = []
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        time.sleep(1)
        small = [bytes(1000) for _ in range(10000)]
        os._exit(0)
    pids.append(pid)
more = bytearray(100 << 20)
print([os.waitpid(pid, 0)[1] for pid in pids])
print(len(data) >> 20)`
		wantRun(t, b.Run(b.Policy(b.Base(memory("512M"))), py, "-c", script), 0, "vfork\nfork\n0\n0\n0\n[0, 0, 0, 0, 0, 0]\n300")
	})
}

// What is killed is the process that asks; the rest goes on.
func Test_memory_kill_spares_the_others(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		r := b.Sh(b.Policy(b.Base(memory("64M"))), py+` -c 'bytearray(200 << 20)'; echo $?`)
		wantRun(t, r, 0, "137")
		if want := "the sandbox reached limits.memory (64M): 1 of its processes were killed"; !strings.Contains(r.Stderr, want) {
			t.Errorf("stderr %q, want %q", r.Stderr, want)
		}
	})
}

// Each thread is promised eight megabytes of stack, and uses a few pages.
const threadsScript = `
import threading
barrier = threading.Barrier(201)
threads = [threading.Thread(target=barrier.wait) for _ in range(200)]
[t.start() for t in threads]
barrier.wait(30)
[t.join() for t in threads]
print(len(threads))`

const goProgram = `package main

import "fmt"

func main() {
	sum := 0
	for i := range 1000 {
		sum += len(make([]byte, 1<<16)) + i
	}
	done := make(chan int)
	for range 100 {
		go func() { done <- 1 }()
	}
	for range 100 {
		sum += <-done
	}
	fmt.Println("go", sum > 0)
}
`

// Runtimes that reserve gigabytes start under half a gigabyte.
func Test_memory_runtimes_start(t *testing.T) {
	built := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(built, []byte(goProgram), 0o644); err != nil {
		t.Fatal(err)
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		goBinary := filepath.Join(b.Work, "program")
		if text, err := exec.Command("go", "build", "-o", goBinary, built).CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, text)
		}
		limited := b.Policy(b.Base(memory("512M")))
		for _, tc := range []struct {
			name string
			args []string
			want string
		}{
			{"python", []string{"/usr/bin/python3", "-c", "import json, threading; print('python')"}, "python"},
			{"python_threads", []string{"/usr/bin/python3", "-c", threadsScript}, "200"},
			{"node", []string{"/usr/bin/node", "-e", "setTimeout(() => console.log('node', os.totalmem() >>> 20), 10)"}, "node 512"},
			{"go", []string{goBinary}, "go true"},
			{"java", []string{"/usr/bin/java", "-XshowSettings:vm", "-version"}, ""},
		} {
			t.Run(tc.name, func(t *testing.T) {
				exectest.Program(t, tc.args[0])
				b := b.In(t)
				wantRun(t, b.Run(limited, tc.args...), 0, tc.want)
			})
		}
	})
}

func Test_machine_as_programs_see_it(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		if got := b.Control("affinity"); !strings.Contains(got, ",") {
			t.Skipf("needs two processors, has %q", got)
		}
		one := b.Policy(b.Base(exectest.Grants{More: "limits: num_cpus: 1"}))
		checkAllowed(t, b, one, []allowed{
			{"one_cpu", []string{"affinity"}, "value 0"},
			{"short_mask", []string{"call", "sched_getaffinity", "0", "7", "b:8"}, "errno EINVAL"},
			{"no_room", []string{"call", "sched_getaffinity", "0", "0", "b:8"}, "errno EINVAL"},
			{"bad_address", []string{"call", "sched_getaffinity", "0", "1024", "1"}, "errno EFAULT"},
			{"huge_mask", []string{"call", "sched_getaffinity", "0", "0xfffffff8", "b:1024"}, "ok"},
			{"nobody", []string{"call", "sched_getaffinity", "0x7ffffff0", "128", "b:128"}, "errno ESRCH"},
			{"all_memory", []string{"mem-sysinfo"}, b.Control("mem-sysinfo")},
		})
		wantRun(t, b.Run(one, "nproc"), 0, "1")
		many := b.Policy(b.Base(exectest.Grants{More: "limits: num_cpus: 1000"}))
		if got, want := b.Attempt(many, "affinity"), b.Control("affinity"); got != want {
			t.Errorf("num_cpus 1000: %q, want %q, what there is", got, want)
		}
		checkAllowed(t, b, b.Policy(b.Base(memory("128M"))), []allowed{
			{"memory", []string{"mem-sysinfo"}, "value total=134217728 swap=0"},
			{"all_cpus", []string{"affinity"}, b.Control("affinity")},
		})
	})
}
