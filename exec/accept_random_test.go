package exec_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// seeded is policy B with further fields of the section determinism.
func seeded(more string) exectest.Grants {
	return exectest.Grants{Write: []string{"/dev/null"}, More: "determinism: {" + more + "}"}
}

func Test_supervisor_8_37_38_random_seed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policies := map[string]string{
			"one": b.Policy(b.Base(seeded("random_seed: 1"))), "999": b.Policy(b.Base(seeded("random_seed: 999"))),
			"fixed": b.Policy(b.Base(seeded("random_seed: 1, no_randomize_memory: true"))), "none": b.Policy(b.Base(seeded(""))),
		}
		for _, tc := range []struct {
			name string
			args []string
		}{
			{"supervisor_8_37_od", []string{"od", "-A", "n", "-N", "16", "-t", "x1", "/dev/urandom"}},
			{"random", []string{"od", "-A", "n", "-N", "16", "-t", "x1", "/dev/random"}},
			{"redirected", []string{"/bin/sh", "-c", "od -A n -N 16 -t x1 </dev/urandom"}},
			{"endless", []string{"/bin/sh", "-c", "head -c 3000000 /dev/urandom | md5sum"}},
			{"one_large_read", []string{"/bin/sh", "-c", "dd if=/dev/urandom bs=1M count=1 status=none | md5sum"}},
			{"by_a_link", []string{"/bin/sh", "-c", "ln -sf /dev/urandom numbers; od -A n -N 16 -t x1 numbers"}},
			{"by_a_directory", []string{"/bin/sh", "-c", "cd /dev; od -A n -N 16 -t x1 ./../dev/urandom"}},
			{"by_a_descriptor", []string{"/bin/sh", "-c", "exec 3</dev/urandom; od -A n -N 16 -t x1 /dev/fd/3; od -A n -N 16 -t x1 /dev/stdin <&3"}},
			{"mktemp", []string{"/bin/sh", "-c", "mktemp -u; mktemp -u"}},
			{"pipeline", []string{"/bin/sh", "-c", "head -c 8 /dev/urandom | od -t x1; mktemp -u | cat | rev"}},
			{"shuf", []string{"shuf", "-i", "1-1000"}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				checkRepeats(t, policies, func(policy string) string {
					r := b.In(t).Run(policy, tc.args...)
					if r.Code != 0 || strings.TrimSpace(r.Stdout) == "" {
						t.Fatalf("exit %d, printed %q\n%s", r.Code, r.Stdout, r.Stderr)
					}
					return r.Stdout
				})
			})
		}
		t.Run("go", func(t *testing.T) {
			checkRepeats(t, policies, func(policy string) string { return b.In(t).Attempt(policy, "random") })
		})
		t.Run("go_after_shells", func(t *testing.T) {
			checkRepeats(t, policies, func(policy string) string {
				r := b.In(t).Run(policy, "/bin/sh", "-c", fmt.Sprintf("/bin/sh -c '%s random; exec %s random'", b.Probe, b.Probe))
				lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
				if len(lines) != 2 || lines[0] == lines[1] {
					t.Fatalf("two runs of a program printed %q, want two different lines\n%s", r.Stdout, r.Stderr)
				}
				return r.Stdout
			})
		})
		// OpenSSL mixes an address into its generator.
		t.Run("openssl", func(t *testing.T) {
			exectest.Program(t, "/usr/bin/openssl")
			one, two := b.In(t).Run(policies["fixed"], "openssl", "rand", "-hex", "8"), b.In(t).Run(policies["fixed"], "openssl", "rand", "-hex", "8")
			if one.Code != 0 || one.Stdout != two.Stdout || len(one.Stdout) != 17 {
				t.Errorf("%q, then %q\n%s", one.Stdout, two.Stdout, one.Stderr)
			}
			wantRun(t, b.In(t).Run(policies["fixed"], "/bin/sh", "-c", "openssl rand -hex 8 | cat"), 0, strings.TrimSpace(one.Stdout))
		})
		t.Run("outside", func(t *testing.T) {
			if one, two := b.Control("random"), b.Control("random"); one == two {
				t.Errorf("%q twice, want a difference", one)
			}
		})
	})
}

// checkRepeats runs something twice under each policy: the same seed must print the same, another seed or none something
// else.
func checkRepeats(t *testing.T, policies map[string]string, run func(policy string) string) {
	t.Helper()
	one := run(policies["one"])
	if again := run(policies["one"]); again != one {
		t.Errorf("the same seed: %q, then %q", one, again)
	}
	if other := run(policies["999"]); other == one {
		t.Errorf("another seed printed %q as well", one)
	}
	if one, two := run(policies["fixed"]), run(policies["fixed"]); one != two {
		t.Errorf("without address space randomisation: %q, then %q", one, two)
	}
	if one, two := run(policies["none"]), run(policies["none"]); one == two {
		t.Errorf("without a seed %q twice", one)
	}
}

const pythonRandom = `
import os, random, secrets, subprocess, tempfile, uuid
print(random.random(), uuid.uuid4(), os.urandom(8).hex(), hash("x"), secrets.token_hex(4))
print(list({"a", "b", "c", "d", "e"}), os.path.basename(tempfile.mkdtemp(dir=".")))
print(subprocess.run(["/usr/bin/python3", "-c", "import os; print(os.urandom(4))"], capture_output=True).stdout)
pid = os.fork()
if pid == 0:
    print(os.urandom(4), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(os.urandom(4), flush=True)
`

func Test_random_seed_python(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		run := func(policy string) string {
			r := b.In(t).Run(policy, "/bin/sh", "-c", "rm -rf tmp*; exec "+py+" -c '"+pythonRandom+"'")
			if r.Code != 0 {
				t.Fatalf("exit %d\n%s", r.Code, r.Stderr)
			}
			return r.Stdout
		}
		checkRepeats(t, map[string]string{
			"one": b.Policy(b.Base(seeded("random_seed: 1"))), "999": b.Policy(b.Base(seeded("random_seed: 999"))),
			"fixed": b.Policy(b.Base(seeded("random_seed: 1, no_randomize_memory: true"))), "none": b.Policy(b.Base(seeded(""))),
		}, run)
	})
}

func Test_random_names_of_proc(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		show := []string{"/bin/sh", "-c", "cat /proc/sys/kernel/random/uuid; cd /proc/sys/kernel/random; cat uuid boot_id"}
		granted := seeded("random_seed: 1")
		granted.Read = []string{"/proc/sys/kernel/random"}
		policy := b.Policy(b.Base(granted))
		one, two := b.Run(policy, show...), b.Run(policy, show...)
		if one.Code != 0 || one.Stdout != two.Stdout || len(one.Stdout) != 3*37 {
			t.Errorf("%q, then %q, want three names, the same each time\n%s", one.Stdout, two.Stdout, one.Stderr)
		}
		if outside := b.Run("", show...); outside.Code != 0 || outside.Stdout == one.Stdout {
			t.Errorf("outside: exit %d, %q, want other names", outside.Code, outside.Stdout)
		}
		wantFailure(t, b.Run(b.Policy(b.Base(seeded("random_seed: 1"))), show...), "Permission denied")
	})
}

// A program that its user cannot read cannot be prepared: it must not run with true randomness instead.
func Test_determinism_holds_or_nothing_runs(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		program, err := os.ReadFile(b.Probe)
		if err != nil {
			t.Fatal(err)
		}
		closed := b.Work + "/closed"
		b.File(closed, string(program))
		if err := os.Chmod(closed, 0o111); err != nil {
			t.Fatal(err)
		}
		for _, more := range []string{"random_seed: 1", `time_start: "2000-01-01T00:00:00Z"`} {
			o := b.Opts(b.Policy(b.Base(seeded(more))), closed, "nnp")
			o.Flags = []string{"--audit", "-"}
			field, _, _ := strings.Cut(more, ":")
			r := exectest.Run(t, o)
			if r.Code != 128+int(syscall.SIGKILL) || r.Stdout != "" || !strings.Contains(r.Stderr, "cannot be prepared for determinism."+field) {
				t.Errorf("%s: exit %d, printed %q, want it killed and a record\n%s", more, r.Code, r.Stdout, r.Stderr)
			}
		}
		wantRun(t, b.Run(b.Policy(b.Base(seeded(""))), closed, "nnp"), 0, "value 1")
	})
}

// The executor writes program images by way of /proc; the command may do no more there than before.
func Test_determinism_opens_nothing_in_proc(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		grants := withProc(b)
		grants.More += "\n" + seeded(`random_seed: 1, time_start: "2000-01-01T00:00:00Z"`).More
		script := "cat /proc/self/comm && echo x >/proc/self/comm"
		wantFailure(t, b.Sh(b.Policy(b.Base(grants)), script), "Permission denied")
		wantRun(t, b.Sh("", script), 0, "cat")
	})
}

// Opens that are notified anyway are explained all the same.
func Test_random_seed_and_explanations(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Outside+"/secret", "S")
		o := b.Opts(b.Policy(b.Base(seeded("random_seed: 1"))), "/bin/sh", "-c", "od -A n -N 4 -t x1 /dev/urandom; cat "+secret)
		plain := exectest.Run(t, o)
		o.Flags = []string{"--explain-denials"}
		explained := exectest.Run(t, o)
		if plain.Stdout == "" || explained.Stdout != plain.Stdout {
			t.Errorf("explained, it prints %q, else %q", explained.Stdout, plain.Stdout)
		}
		wantFailure(t, explained, "denied openat "+secret+" (pid ")
	})
}

func Test_random_device_and_call(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(seeded("random_seed: 1")))
		for _, tc := range []struct {
			name string
			args []string
			want string // after the bytes
		}{
			{"plain", []string{"read-file", "/dev/urandom", "0", "4"}, "nonblock=false cloexec=false"},
			{"nonblock", []string{"read-file", "/dev/urandom", "0x800", "4"}, "nonblock=true cloexec=false"},
			{"cloexec", []string{"read-file", "/dev/urandom", "0x80000", "4"}, "nonblock=false cloexec=true"},
			{"not_granted_for_writing", []string{"read-file", "/dev/urandom", "2", "4"}, "errno EACCES (open)"},
			{"length", []string{"getrandom", "1000", "0"}, "value 1000"},
			{"unknown_flag", []string{"getrandom", "8", "8"}, "errno EINVAL"},
			{"contradiction", []string{"getrandom", "8", "6"}, "errno EINVAL"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				got := b.In(t).Attempt(policy, tc.args...)
				if !strings.HasSuffix(got, tc.want) {
					t.Errorf("%q, want %q at the end", got, tc.want)
				}
				if outside := b.In(t).Control(tc.args...); !strings.HasSuffix(outside, tc.want) && tc.name != "not_granted_for_writing" {
					t.Errorf("outside: %q, want %q at the end", outside, tc.want)
				}
			})
		}
		// Where the device is not granted the seed opens nothing.
		closed := b.Policy(`filesystem: read: [{path: "/lib64", optional: true}, "/usr", "/lib", "/bin", "` + strings.TrimSuffix(b.Probe, "/probe") + `"]
			determinism: random_seed: 1`)
		if got, want := b.Attempt(closed, "read-file", "/dev/urandom", "0", "4"), "errno EACCES (open)"; got != want {
			t.Errorf("not granted: %q, want %q", got, want)
		}
	})
}
