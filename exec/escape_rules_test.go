package exec_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// closing is a policy that closes a path, inside a granted tree, from the command's start on.
func closing(b *exectest.Box, more ...string) exectest.Grants {
	g := ruled(append([]string{`{on: ["execve"], do: [{deny_path: "` + b.Work + `/closed"}]}`}, more...)...)
	g.Write = append(g.Write, b.Outside)
	return g
}

// closedSetup puts a secret where a rule closes it, and aliases for it where everything is granted.
func closedSetup(t *testing.T, b *exectest.Box) []string {
	for _, path := range []string{b.Work, b.Outside} {
		clear(t, path)
	}
	if err := os.Mkdir(b.Work+"/closed", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.Work+"/closed", 0o777); err != nil {
		t.Fatal(err)
	}
	b.File(b.Work+"/closed/secret", "S")
	b.File(b.Outside+"/mine", "m")
	b.Link(b.Work+"/closed/secret", b.Work+"/link")
	b.Link("closed/secret", b.Work+"/relative")
	b.Link(b.Work+"/link", b.Work+"/chain")
	b.Link(b.Work+"/closed", b.Work+"/dirlink")
	return []string{"$SECRET", b.Work + "/closed/secret"}
}

func Test_escape_09_12_closed_path(t *testing.T) {
	grants := func(b *exectest.Box) exectest.Grants {
		g := closing(b)
		g.Read, g.More = []string{"/proc"}, g.More+"\nfilesystem: proc: \"host\""
		return g
	}
	suite{grants: grants, setup: closedSetup, attempts: []attempt{
		{"plain", []string{"openat", "$SECRET", "r"}, eacces, works},
		{"write", []string{"openat", "$SECRET", "w"}, eacces, works},
		{"truncate_on_open", []string{"openat", "$SECRET", "t"}, eacces, works},
		{"o_path", []string{"openat", "$SECRET", "x"}, eacces, works},
		{"link", []string{"openat", "$WORK/link", "r"}, eacces, works},
		{"relative_link", []string{"openat", "$WORK/relative", "r"}, eacces, works},
		{"chain", []string{"openat", "$WORK/chain", "rw"}, eacces, works},
		{"directory_link", []string{"openat", "$WORK/dirlink/secret", "r"}, eacces, works},
		{"list", []string{"openat", "$WORK/dirlink", "d"}, eacces, works},
		{"dots", []string{"openat", "$WORK/closed/../closed/./secret", "r"}, eacces, works},
		{"slashes", []string{"openat", "//$WORK//closed//secret", "r"}, eacces, works},
		{"legacy_open", []string{"open", "$SECRET", "r"}, eacces, works},
		{"creat", []string{"creat", "$SECRET"}, eacces, works},
		{"create", []string{"openat", "$WORK/closed/new", "c"}, eacces, works},
		{"create_by_link", []string{"openat", "$WORK/dirlink/new", "c"}, eacces, works},
		{"self_root", []string{"openat", "/proc/self/root$SECRET", "r"}, eacces, works},
		{"self_cwd", []string{"openat", "/proc/self/cwd/closed/secret", "r"}, eacces, works},
		{"thread_self_cwd", []string{"openat", "/proc/thread-self/cwd/closed/secret", "r"}, eacces, works},
		{"reopen", []string{"reopen", "$SECRET", "r"}, eacces, works},
		{"directory_descriptor", []string{"openat-dir", "$WORK", "closed/secret", "r"}, eacces, works},
		{"truncate", []string{"call", "truncate", "s:$SECRET", "0"}, eacces, works},
		{"unlink", []string{"call", "unlink", "s:$SECRET"}, eacces, works},
		{"rename_out", []string{"call", "rename", "s:$SECRET", "s:$WORK/stolen"}, eacces, works},
		{"rename_over", []string{"call", "rename", "s:$OUT/mine", "s:$SECRET"}, eacces, works},
		{"rename_directory", []string{"call", "rename", "s:$WORK/closed", "s:$WORK/open"}, eacces, works},
		{"rename_above", []string{"call", "rename", "s:$WORK", "s:$OUT/work"}, eacces, harmful},
		{"exchange", []string{"call", "renameat2", "-100", "s:$OUT/mine", "-100", "s:$SECRET", "2"}, eacces, works},
		{"link_out", []string{"call", "link", "s:$SECRET", "s:$WORK/hard"}, eacces, works},
		{"link_out_by_link", []string{"call", "linkat", "-100", "s:$WORK/link", "-100", "s:$WORK/hard", "0x400"}, eacces, works},
		{"link_in", []string{"call", "link", "s:$OUT/mine", "s:$WORK/closed/mine"}, eacces, works},
		{"mkdir", []string{"call", "mkdir", "s:$WORK/closed/d", "0755"}, eacces, works},
		{"mkfifo", []string{"call", "mknod", "s:$WORK/closed/p", "0o10644", "0"}, eacces, works},
		{"symlink", []string{"call", "symlink", "s:x", "s:$WORK/closed/l"}, eacces, works},
		{"chmod", []string{"call", "chmod", "s:$SECRET", "0600"}, eacces, works},
		{"execute", []string{"exec", "$SECRET"}, []string{"errno EACCES"}, harmful},
	}}.run(t)
}

// A file that is closed by its own path is closed under every other name that it has.
func Test_escape_closed_file_by_hard_link(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		b.File(b.Work+"/secret", "S")
		if err := os.Link(b.Work+"/secret", b.Work+"/hard"); err != nil {
			t.Fatal(err)
		}
		artifact := b.Policy(b.Base(ruled(`{on: ["execve"], do: [{deny_path: "` + b.Work + `/secret"}]}`)))
		if got := b.Attempt(artifact, "openat", b.Work+"/hard", "r"); got != "errno EACCES" {
			t.Errorf("hard link: %q, want errno EACCES", got)
		}
		if got := b.Control("openat", b.Work+"/hard", "r"); got != "ok" {
			t.Errorf("outside: %q, want ok", got)
		}
	})
}

// 10: a link is swapped while it is opened; 11: the path in memory is.
func Test_escape_10_11_closed_path_races(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		for _, race := range []string{"swap-race", "pointer-race"} {
			t.Run(map[string]string{"swap-race": "escape_10_symlink_swap", "pointer-race": "escape_11_pointer_toctou"}[race], func(t *testing.T) {
				t.Parallel()
				b := exectest.NewBox(t, u)
				closedSetup(t, b)
				if err := os.Mkdir(b.Work+"/granted", 0o755); err != nil {
					t.Fatal(err)
				}
				b.File(b.Work+"/granted/secret", "o")
				b.File(b.Work+"/closed/secre", "S")
				unlink := func() {
					if err := os.RemoveAll(b.Work + "/link"); err != nil {
						t.Fatal(err)
					}
				}
				args, opens := []string{race, b.Work, b.Work + "/closed/secret"}, raced(u, often(100000))
				if race == "pointer-race" {
					args, opens = []string{race, b.Work + "/granted/secret", b.Work + "/closed/./secre"}, "10000"
				}
				unlink()
				if got := b.Control(append(args, "10000")...); !strings.HasPrefix(got, "value leaks=some") {
					t.Errorf("outside: %q, want leaks", got)
				}
				unlink()
				o := b.Opts(b.Policy(b.Base(closing(b))), append(append([]string{b.Probe}, args...), opens)...)
				o.Timeout = 3 * time.Minute
				if got := strings.TrimSpace(exectest.Run(t, o).Stdout); got != "value leaks=none opened=some refused=some" {
					t.Errorf("inside: %q, want no leaks, and that the race was run", got)
				}
			})
		}
	})
}

// execRace runs /bin/echo many times, each time with an argument in memory that another process writes over in turn.
const execRace = `
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
n = int(sys.argv[1])
shared = mmap.mmap(-1, 4096)
base = ctypes.addressof(ctypes.c_char.from_buffer(shared))
good, bad = b"good\0", bytes([98, 97, 100]) + b"!\0"
shared[0:5] = good
flipper = os.fork()
if flipper == 0:
    while True:
        shared[0:5] = bad
        shared[0:5] = good
argv = (ctypes.c_void_p * 3)(ctypes.cast(ctypes.c_char_p(b"echo"), ctypes.c_void_p).value, base, None)
envp = (ctypes.c_void_p * 1)(None)
r, w = os.pipe()
ends = {}
for _ in range(n):
    pid = os.fork()
    if pid == 0:
        os.dup2(w, 1)
        libc.execve(b"/bin/echo", argv, envp)
        os._exit(77)
    _, status = os.waitpid(pid, 0)
    ends[status] = ends.get(status, 0) + 1
os.kill(flipper, 9)
os.close(w)
out = b""
while chunk := os.read(r, 65536):
    out += chunk
words = out.split()
print("good" if words.count(b"good") else "none", words.count(b"bad!") and "bad" or "none", "refused" if ends.get(77 << 8) or ends.get(9) else "none")
`

// The argument is changed between the look and the kernel's: the denied program never gets to its output.
func Test_escape_exec_argument_race(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(ruled(`{on: ["execve"], if: {exe: "/bin/echo", argv_contains: "bad!"}, then: "deny"}`)))
		wantRun(t, b.Run(artifact, py, "-c", execRace, "300"), 0, "good none refused")
		o := b.Opts("", py, "-c", execRace, "200")
		wantRun(t, exectest.Run(t, o), 0, "good bad none")
	})
}

// Programs that execute others in every usual and unusual way must not notice that they are traced for it.
func Test_rules_exec_in_every_way(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(ruled(`{on: ["execve"], if: argv_contains: "malicious", then: "deny"}`)))
		for name, tc := range map[string]struct {
			args []string
			want string
		}{
			"supervisor_8_60_in_turn": {[]string{py, "-c", "import os\nfor i in range(30):\n    if os.fork() == 0: os.execv('/bin/true', ['true'])\n    assert os.wait()[1] == 0\nprint('done')"}, "done"},
			"storm_of_spawns": {[]string{py, "-c", `
import subprocess, threading
bad = []
def work():
    for _ in range(20):
        try:
            r = subprocess.run(["/bin/echo", "x"], capture_output=True)
            if r.stdout != b"x\n" or r.returncode: bad.append(r)
        except Exception as e: bad.append(e)
threads = [threading.Thread(target=work) for _ in range(16)]
for t in threads: t.start()
for t in threads: t.join()
print(len(bad), bad[:2])`}, "0 []"},
			"posix_spawn": {[]string{py, "-c", `
import os, threading
bad = []
def work():
    for _ in range(20):
        pid = os.posix_spawn("/bin/true", ["true"], {})
        if os.waitpid(pid, 0)[1]: bad.append(pid)
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(bad)`}, "[]"},
			"another_thread_than_the_leader": {[]string{py, "-c", `
import os, threading, time
threading.Thread(target=lambda: time.sleep(60), daemon=True).start()
threading.Thread(target=lambda: os.execv("/bin/echo", ["echo", "done"])).start()
time.sleep(60)`}, "done"},
			"two_threads_at_a_time": {[]string{py, "-c", `
import os, threading, time
for i in range(30):
    pid = os.fork()
    if pid == 0:
        def run():
            while True:
                try: os.execv("/bin/true", ["true"])
                except BlockingIOError: pass
        for _ in range(4): threading.Thread(target=run).start()
        time.sleep(60)
    assert os.waitpid(pid, 0)[1] == 0
print("done")`}, "done"},
			"failing_first": {[]string{py, "-c", `
import os, time, threading
open("empty", "w").close(); os.chmod("empty", 0o755)
for i in range(20):
    try: os.execv("./empty", ["empty"])
    except OSError as e: assert e.errno == 8, e
    try: os.execv("./none", ["none"])
    except OSError as e: assert e.errno == 2, e
time.sleep(0.1)
os.kill(os.getpid(), 18)
os.execv("/bin/echo", ["echo", "done"])`}, "done"},
			"path_search": {[]string{"/usr/bin/env", "PATH=/nowhere:/usr/nothing:/bin", "sh", "-c", "echo done"}, "done"},
			"stopped_and_continued": {[]string{"/bin/sh", "-c", `
i=0
while [ $i -lt 40 ]; do
	/bin/sh -c 'exec /bin/sh -c "exec /bin/sh -c :"' & p=$!
	kill -STOP $p; kill -CONT $p; kill -STOP $p; kill -CONT $p
	wait $p || exit 1
	i=$((i+1))
done
echo done`}, "done"},
			"signals": {[]string{py, "-c", `
import signal, subprocess
n = [0]
signal.signal(signal.SIGALRM, lambda *a: n.__setitem__(0, n[0] + 1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for i in range(60):
    assert subprocess.run(["/bin/echo", "x"], capture_output=True).stdout == b"x\n"
signal.setitimer(signal.ITIMER_REAL, 0)
print(n[0] > 0)`}, "True"},
			"pipeline": {[]string{"/bin/sh", "-c", "i=0; while [ $i -lt 50 ]; do echo a | cat | cat | cat >/dev/null || exit 1; i=$((i+1)); done; echo done"}, "done"},
		} {
			t.Run(name, func(t *testing.T) {
				clear(t, b.Work)
				wantRun(t, b.In(t).Run(artifact, tc.args...), 0, tc.want)
			})
		}
	})
}

// An open that waits keeps nobody else waiting, however many there are, and ends with its caller.
func Test_rules_open_of_fifo_stalls_nobody(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(ruled(`{on: ["open"], if: path: "/etc/hostname", then: "deny"}`)))
		script := `
mkfifo through stuck
for i in 1 2 3 4 5 6 7 8; do (read x <stuck) & done
(read x <through; echo got $x) &
echo hello >through
wait $!
cat /etc/passwd >/dev/null && echo open
kill -9 $(jobs -p) 2>/dev/null
echo end`
		wantRun(t, b.Sh(artifact, script), 0, "got hello\nopen\nend")
	})
}

// What is created by the executor looks as if the caller had done it.
func Test_rules_files_made_on_behalf(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		script := `umask 027; echo a >file; mkdir dir; mkfifo fifo; ln -s nowhere link; echo b >link; (umask 077; echo c >own)
echo d >>file; cat file; stat -c '%n %A %u' dir fifo file link nowhere own; head -c 1 </dev/zero | wc -c; ls -d .; cat /dev/fd/3 3<file; cat <<end
here
end
set -C; (echo x >file) 2>/dev/null || echo exists; echo x >new && cat new; mv new newer; ln newer twice; rm newer; cat twice`
		plain := b.Base(exectest.Grants{Write: []string{"/dev/null"}})
		ruled := b.Base(ruled(`{on: ["file"], if: path: "/etc/nothing", then: "deny"}`))
		var got []string
		for _, policy := range []string{plain, ruled} {
			clear(t, b.Work)
			r := b.Sh(b.Policy(policy), script)
			got = append(got, fmt.Sprintf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr))
		}
		if got[0] != got[1] || !strings.Contains(got[0], "-rw-r-----") || !strings.Contains(got[0], "here") {
			t.Errorf("without rules:\n%s\nwith:\n%s", got[0], got[1])
		}
	})
}
