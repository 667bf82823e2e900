package exec_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// denied is the policy text that closes paths.
func denied(paths ...string) string { return fmt.Sprintf("filesystem: deny: %s\n", list(paths)) }

// protected is the policy text that keeps what patterns match unchanged.
func protected(patterns ...string) string {
	return fmt.Sprintf("filesystem: protect: %s\n", list(patterns))
}

func list(items []string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = fmt.Sprintf("%q", item)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// inTree is a policy with a secret in a write grant.
func inTree(more string) func(*exectest.Box) exectest.Grants {
	return func(b *exectest.Box) exectest.Grants {
		return exectest.Grants{Read: []string{"/proc"}, Write: []string{b.Outside}, More: denied(b.Outside+"/secret") + more}
	}
}

var (
	mountPoint = []string{"errno EBUSY"}
	// A truncating open asks for a writable mount before it asks for the mode.
	closedOrReadOnly = []string{"errno EACCES", "errno EROFS"}

	inPlace = []string{"errno EBUSY", "errno EXDEV", "errno EACCES", "errno EPERM"}
)

// Every way to the secret that the specification lists, and what the kernel has beside.
var treeAttempts = slices.Concat(readAttempts, []attempt{
	{"network_6_34_link", []string{"exec", "/bin/sh", "-c", "ln $SECRET $OUT/copy 2>/dev/null; exec $0 openat $OUT/copy r", "$PROBE"}, []string{"errno ENOENT", "errno EACCES"}, works},
	{"network_6_34_alias", []string{"openat", "$OUT/hard", "r"}, eacces, works},
	{"network_6_34_alias_in_another_grant", []string{"openat", "$WORK/hard", "r"}, eacces, works},
	{"network_6_34_move", []string{"call", "rename", "s:$SECRET", "s:$OUT/x"}, mountPoint, works},
	{"network_6_34_renameat", []string{"call", "renameat", "-100", "s:$SECRET", "-100", "s:$OUT/x"}, mountPoint, works},
	{"network_6_34_move_onto", []string{"call", "rename", "s:$OUT/other", "s:$SECRET"}, mountPoint, works},
	{"network_6_34_renameat_onto", []string{"call", "renameat", "-100", "s:$OUT/other", "-100", "s:$SECRET"}, mountPoint, works},
	{"network_6_34_alias_moved", []string{"call", "rename", "s:$OUT/hard", "s:$OUT/x"}, mountPoint, works},
	{"network_6_34_symlink", []string{"exec", "/bin/sh", "-c", "ln -s secret $OUT/new && exec $0 openat $OUT/new r", "$PROBE"}, eacces, works},
	{"network_6_34_planted_symlink", []string{"openat", "$WORK/link", "r"}, eacces, works},
	{"network_6_34_chain", []string{"openat", "$WORK/chain", "r"}, eacces, works},
	{"network_6_34_remove", []string{"call", "unlink", "s:$SECRET"}, mountPoint, works},
	{"network_6_34_truncate", []string{"call", "truncate", "s:$SECRET", "0"}, eacces, works},
	{"escape_14_exchange", []string{"call", "renameat2", "-100", "s:$SECRET", "-100", "s:$OUT/other", "2"}, mountPoint, works},
	{"escape_14_linkat_empty_path", []string{"link-empty", "$SECRET", "$OUT/copy"}, []string{"errno EXDEV", "errno EACCES", "errno ENOENT", "errno EPERM"}, mayRefuse},
	{"escape_14_linkat", []string{"call", "linkat", "-100", "s:$WORK/link", "-100", "s:$OUT/copy", "0x400"}, inPlace, works},
	{"escape_12_self_root", []string{"openat", "/proc/self/root$SECRET", "r"}, eacces, works},
	{"escape_12_self_cwd", []string{"openat", "/proc/self/cwd/../outside/secret", "r"}, eacces, works},
	{"escape_12_dots", []string{"openat", "$WORK/../outside/./secret", "r"}, eacces, works},
	{"escape_12_slashes", []string{"openat", "//$SECRET", "r"}, eacces, works},
	{"escape_13_reopen", []string{"reopen", "$SECRET", "r"}, eacces, works},
	{"escape_13_reopen_for_writing", []string{"reopen", "$SECRET", "rw"}, eacces, works},
	{"escape_13_fchdir", []string{"fchdir-open", "$OUT", "secret", "r"}, eacces, works},
	{"escape_16_open_for_writing", []string{"open", "$SECRET", "w"}, eacces, works},
	{"escape_16_creat", []string{"creat", "$SECRET"}, closedOrReadOnly, works},
	{"escape_16_openat_truncating", []string{"openat", "$SECRET", "t"}, closedOrReadOnly, works},
	{"escape_16_openat_creating", []string{"openat", "$SECRET", "c"}, eacces, works},
	{"escape_16_openat2_in_root_of_grant", []string{"second-word", "$OUT", "secret", "in_root"}, []string{"errno EACCES", "errno EPERM", "errno ENOSYS"}, harmful},
	{"escape_16_ftruncate", []string{"ftruncate", "$SECRET"}, eacces, works},
	{"escape_16_fallocate", []string{"fallocate", "$SECRET"}, eacces, works},
	{"escape_16_mmap_shared", []string{"mmap-shared-write", "$SECRET"}, eacces, works},
	{"escape_16_chmod", []string{"call", "chmod", "s:$SECRET", "0600"}, refused, works},
	{"escape_16_chmod_of_an_alias", []string{"call", "chmod", "s:$OUT/hard", "0600"}, refused, works},
	{"escape_16_fchmodat2", []string{"call", "fchmodat2", "-100", "s:$SECRET", "0600", "0"}, refused, works},
	{"escape_16_fchmodat2_o_path", []string{"chmod-opath", "$SECRET"}, refused, works},
	{"escape_16_lchown", []string{"call", "lchown", "s:$SECRET", "-1", "-1"}, refused, works},
	{"escape_16_utimensat", []string{"call", "utimensat", "-100", "s:$SECRET", "0", "0"}, refused, works},
	{"escape_16_setxattr", []string{"call", "setxattr", "s:$SECRET", "s:user.a", "s:x", "1", "0"}, refused, works},
	{"escape_16_removexattr", []string{"call", "removexattr", "s:$SECRET", "s:user.a"}, refused, notRefused},
	{"escape_15_name_to_handle_at", []string{"handle", "$SECRET"}, refused, works},
	{"hole_5_inotify", []string{"watch-file", "$SECRET"}, eacces, works},
	{"hole_5_list_xattr", []string{"call", "listxattr", "s:$SECRET", "0", "0"}, nil, works},
	{"hole_5_mknod", []string{"call", "mknod", "s:$SECRET", "0o100644", "0"}, []string{"errno EEXIST"}, notRefused},
})

// together is run with all attempts in one sandbox: each must leave the setting as it is, as attempts that fail do.
func (s suite) together(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(s.grants(b)))
		words := append([]string{"$WORK", b.Work, "$OUT", b.Outside}, s.setup(t, b)...)
		for i, got := range attemptAll(t, b, artifact, s.attempts, words) {
			a := s.attempts[i]
			if got != "absent" && !refusedAs(got, a.want) {
				t.Errorf("%s: inside: probe %q = %q, want one of %q", a.name, replaceAll(a.args, words), got, a.want)
			}
		}
		for _, a := range s.attempts {
			if a.control != harmful {
				t.Run(a.name, func(t *testing.T) {
					s.setup(t, b)
					a.checkControl(t, b.In(t), replaceAll(a.args, words))
				})
			}
		}
	})
}

// attemptAll makes attempts in one sandbox and returns how each ended.
func attemptAll(t *testing.T, b *exectest.Box, artifact string, attempts []attempt, words []string) []string {
	t.Helper()
	var script strings.Builder
	for _, a := range attempts {
		fmt.Fprintf(&script, "'%s'", b.Probe)
		for _, arg := range replaceAll(a.args, words) {
			fmt.Fprintf(&script, " '%s'", arg)
		}
		script.WriteString(" || echo failed $?\n")
	}
	r := b.Sh(artifact, script.String())
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	if len(lines) != len(attempts) {
		t.Fatalf("%d lines for %d attempts, exit %d\n%s\n%s", len(lines), len(attempts), r.Code, r.Stdout, r.Stderr)
	}
	return lines
}

// treeSetup is secretSetup with hard links that were made before the start.
func treeSetup(t *testing.T, b *exectest.Box) []string {
	words := secretSetup(t, b)
	for _, link := range []string{b.Outside + "/hard", b.Work + "/hard"} {
		if err := os.Link(b.Outside+"/secret", link); err != nil {
			t.Fatal(err)
		}
	}
	return words
}

func Test_network_6_34_supervisor_8_105_114_denied_file_in_a_write_grant(t *testing.T) {
	attempts := slices.DeleteFunc(slices.Clone(treeAttempts), func(a attempt) bool { return a.want == nil })
	suite{grants: inTree(""), setup: treeSetup, attempts: attempts}.withProbe().together(t)
}

// The same where the executor makes the calls on behalf: it is in another mount namespace, for which nothing is mounted.
func Test_network_6_34_denied_file_under_rules_about_files(t *testing.T) {
	for name, rules := range map[string]string{
		"remove": `rules: [{on: ["unlink", "rename"], if: path: "/nowhere/**", then: "deny"}]`,
		"file":   `rules: [{on: ["file"], if: path: "/nowhere/**", then: "deny"}]`,
		"open":   `rules: [{on: ["open"], if: path: "/nowhere/**", then: "deny"}]`,
		"random": "determinism: random_seed: 1",
	} {
		t.Run(name, func(t *testing.T) {
			var attempts []attempt
			for _, a := range treeAttempts {
				// What the plain start answers, too; the calls that are carried out are these.
				if a.want == nil || name != "file" && !strings.Contains(a.name, "34") {
					continue
				}
				if slices.Contains(a.want, "errno EBUSY") || slices.Contains(a.want, "errno EACCES") {
					a.want = append(slices.Clone(a.want), append([]string{"errno EROFS", "errno ENOENT"}, inPlace...)...)
				}
				a.control = harmful // made above
				attempts = append(attempts, a)
			}
			suite{grants: inTree(rules), setup: treeSetup, attempts: attempts}.withProbe().together(t)
		})
	}
}

// After all of it the files are as they were, and no name more or less is there.
func Test_escape_16_denied_file_unchanged(t *testing.T) {
	for name, rules := range map[string]string{"plain": "", "rules": `rules: [{on: ["file"], if: path: "/nowhere/**", then: "deny"}]`} {
		t.Run(name, func(t *testing.T) {
			exectest.InParallel(t, func(t *testing.T, u exectest.User) {
				b := exectest.NewBox(t, u)
				words := append([]string{"$WORK", b.Work, "$OUT", b.Outside, "$PROBE", b.Probe}, treeSetup(t, b)...)
				artifact := b.Policy(b.Base(inTree(rules)(b)))
				before := secretFile(t, b.Outside+"/secret")
				attemptAll(t, b, artifact, treeAttempts, words)
				for _, name := range []string{"secret", "hard"} {
					if after := secretFile(t, b.Outside+"/"+name); after != before {
						t.Errorf("%s before: %s, after: %s", name, before, after)
					}
				}
			})
		})
	}
}

func secretFile(t *testing.T, path string) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	return fmt.Sprintf("%q %v mode=%o uid=%d nlink=%d mtime=%v", text, err, st.Mode, st.Uid, st.Nlink, st.Mtim)
}

// A directory, which is the whole of a grant: every attempt on what lies in it fails as if nothing were granted.
func Test_denied_directory_is_as_not_granted(t *testing.T) {
	suite{grants: func(b *exectest.Box) exectest.Grants {
		return exectest.Grants{Write: []string{b.Outside}, More: denied(b.Outside)}
	}, setup: secretSetup, attempts: slices.Clone(outsideAttempts)}.withProbe().together(t)
}

func Test_network_6_25_32_33_35_36(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		b.File(b.Work+"/secret", "S")
		b.File(b.Work+"/ok", "content")
		artifact := b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}, More: denied(b.Work+"/secret", "/bin/cat", "/etc/shadow")}))
		plain := b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}}))

		wantFailure(t, b.Run(artifact, "/usr/bin/head", b.Work+"/secret"), "Permission denied")
		wantRun(t, b.Run(plain, "/usr/bin/head", b.Work+"/secret"), 0, "S")
		wantRun(t, b.Run(artifact, "/usr/bin/head", b.Work+"/ok"), 0, "content")
		if r := b.Run(artifact, "/bin/cat", b.Work+"/ok"); r.Code != 126 || !strings.Contains(r.Stderr, "filesystem.deny[1]") {
			t.Errorf("denied program: exit %d, want 126 and the rule\n%s", r.Code, r.Stderr)
		}
		wantFailure(t, b.Sh(artifact, "/usr/bin/cat ok || exit 1"), "Permission denied")
		wantRun(t, b.Run(plain, "/bin/cat", b.Work+"/ok"), 0, "content")
		wantRun(t, b.Sh(artifact, "echo new > n && mkdir d && ln n d/hard && mv n d/n && head d/hard && rm -r d"), 0, "new")
		wantFailure(t, b.Run(artifact, "/usr/bin/head", "/etc/shadow"), "Permission denied")
		for _, mode := range []string{"r", "w"} {
			if got := b.Attempt(artifact, "openat2", b.Work+"/secret", mode, "none"); !refusedAs(got, []string{"errno EACCES", "errno ENOSYS", "errno EPERM"}) {
				t.Errorf("openat2: %q", got)
			}
		}
		// 36: what an earlier sandbox broke as soon as anything was denied.
		wantRun(t, b.Sh(artifact, "echo typed | head /dev/stdin; echo more | head /proc/self/fd/0; head /dev/fd/0 < ok"), 0, "typed\nmore\ncontent")
		r := b.Sh(artifact, `read -r own rest < /proc/self/stat; test "$own" = $$ && echo same; MARK=x head -c 9999 /proc/self/environ | tr '\0' '\n' | grep -c ^MARK=x`)
		wantRun(t, r, 0, "same\n1")
		// A dangling link is followed by the command alone, with its rights.
		b.Link(b.Outside+"/made", b.Work+"/dangling")
		b.Link(b.Work+"/secret/x", b.Work+"/dangling2")
		for _, name := range []string{"dangling", "dangling2"} {
			if got := b.Attempt(artifact, "openat", b.Work+"/"+name, "c"); got == "ok" {
				t.Errorf("create through %s: %q", name, got)
			}
		}
		if got := b.Control("openat", b.Work+"/dangling", "c"); got != "ok" {
			t.Errorf("control: create through a link: %q", got)
		}
	})
}

// What a stat tells is of the closed node: nothing of the file.
func Test_hole_5_metadata_of_a_denied_file(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Work+"/secret", strings.Repeat("S", 4321))
		_ = os.Chmod(secret, 0o741)
		link := b.Link("secret", b.Work+"/link")
		artifact := b.Policy(b.Base(exectest.Grants{More: denied(secret)}))
		if got := b.Attempt(artifact, "stat", secret); !strings.HasPrefix(got, "value mode=100000 size=0 ") {
			t.Errorf("stat: %q", got)
		}
		if got := b.Control("stat", secret); !strings.HasPrefix(got, "value mode=100741 size=4321 ") {
			t.Errorf("control: stat: %q", got)
		}
		if got := b.Attempt(artifact, "readlink", link); got != "value secret" { // it lies in the grant, and is no secret
			t.Errorf("readlink: %q", got)
		}
		if b.Control("call", "setxattr", "s:"+secret, "s:user.a", "s:x", "1", "0") == "ok" {
			if got := b.Attempt(artifact, "call", "getxattr", "s:"+secret, "s:user.a", "b:9", "9"); got == "ok" {
				t.Errorf("getxattr: %q", got)
			}
		}
	})
}

// Kinds of files, and ways to name them.
func Test_deny_each_kind(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		read := b.Dir("readable")
		home := b.Dir("home")
		b.File(read+"/file", "S")
		for _, dir := range []string{read + "/dir", read + "/dir/sub"} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			own(t, b, dir)
		}
		b.File(read+"/dir/sub/file", "S")
		if err := os.Link(read+"/dir/sub/file", b.Work+"/alias"); err != nil {
			t.Fatal(err)
		}
		b.File(b.Work+"/target", "S")
		b.Link("target", b.Work+"/link")
		b.Link(home, b.Work+"/homelink")
		b.File(home+"/token", "S")
		b.File(b.Work+"/byparam", "S")
		for _, fifo := range []string{b.Work + "/fifo"} {
			if err := syscall.Mkfifo(fifo, 0o666); err != nil {
				t.Fatal(err)
			}
			own(t, b, fifo)
		}
		artifact := b.Policy(b.Base(exectest.Grants{Read: []string{read}, Write: []string{home}, More: denied(
			read+"/file", read+"/dir", b.Work+"/link", b.Work+"/fifo", b.Work+"/missing", b.Work+"/no/such/dir/file",
			"${cwd}/byparam", b.Work+"/homelink/token", "/dev/zero", read+"/missing")}))
		control := b.Policy(b.Base(exectest.Grants{Read: []string{read}, Write: []string{home}}))
		for _, tc := range []struct{ path, mode string }{
			{read + "/file", "r"}, {read + "/dir", "d"}, {read + "/dir/sub/file", "r"}, {b.Work + "/alias", "r"}, {b.Work + "/target", "r"},
			{b.Work + "/link", "r"}, {b.Work + "/fifo", "rw"}, {b.Work + "/byparam", "r"}, {home + "/token", "r"}, {"/dev/zero", "r"},
			{b.Work + "/missing", "c"}, {b.Work + "/no/such/dir/file", "c"},
		} {
			if got := b.Attempt(artifact, "openat", tc.path, tc.mode); !refusedAs(got, eacces) {
				t.Errorf("openat %s %s: %q, want errno EACCES", tc.path, tc.mode, got)
			}
			if strings.Contains(tc.path, "no/such") {
				continue
			}
			if got := b.Attempt(control, "openat", tc.path, tc.mode); got != "ok" {
				t.Errorf("without the rule: openat %s %s: %q, want ok", tc.path, tc.mode, got)
			}
		}
		wantRun(t, b.Sh(artifact, "mkdir -p no/other && echo x > no/other/f && rm -r no/other && echo fine"), 0, "fine")
	})
}

// A denied socket cannot be reached, by the kernel or on behalf.
func Test_deny_socket(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, name := range []string{"closed.sock", "open.sock"} {
			l, err := net.Listen("unix", b.Work+"/"+name)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_ = os.Chmod(b.Work+"/"+name, 0o777)
			own(t, b, b.Work+"/"+name)
		}
		b.Link("closed.sock", b.Work+"/link.sock")
		for _, network := range []string{`network: unix: "granted"`, `network: {unix: "granted", allow: ["tcp://192.0.2.1:80"]}`} {
			artifact := b.Policy(b.Base(exectest.Grants{More: network + "\n" + denied(b.Work+"/closed.sock")}))
			if got := b.Attempt(artifact, "unix-connect", "1", b.Work+"/open.sock"); got != "ok" {
				t.Errorf("%s: the other socket: %q", network, got)
			}
			for _, name := range []string{"closed.sock", "link.sock", "../work/closed.sock"} {
				if got := b.Attempt(artifact, "unix-connect", "1", b.Work+"/"+name); !refusedAs(got, []string{"errno EACCES", "errno ECONNREFUSED"}) {
					t.Errorf("%s: connect %s: %q", network, name, got)
				}
			}
			if got := b.Attempt(artifact, "call", "unlink", "s:"+b.Work+"/closed.sock"); !refusedAs(got, mountPoint) {
				t.Errorf("%s: unlink: %q", network, got)
			}
		}
		if got := b.Control("unix-connect", "1", b.Work+"/closed.sock"); got != "ok" {
			t.Errorf("control: %q", got)
		}
	})
}

// Beneath another root, and where something is mounted.
func Test_deny_in_a_chroot_and_on_mounts(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		root := b.Dir("root")
		for _, dir := range []string{"/data", "/probe", "/data/mnt"} {
			if err := os.Mkdir(root+dir, 0o755); err != nil {
				t.Fatal(err)
			}
			own(t, b, root+dir)
		}
		b.File(root+"/data/secret", "S")
		b.File(root+"/data/ok", "o")
		b.File(b.Outside+"/secret", "S")
		b.File(b.Outside+"/ok", "o")
		policy := func(deny string) string {
			return b.Policy(fmt.Sprintf(`filesystem: {
	chroot: %q
	read: ["/probe"]
	write: ["/data"]
	mount: [{target: "/probe", source: %q}, {target: "/data/mnt", source: %q, mode: "rw"}]
}
`, root, filepath.Dir(b.Probe), b.Outside) + deny)
		}
		run := func(artifact string, args ...string) string {
			o := b.Opts(artifact, append([]string{"/probe/probe"}, args...)...)
			return strings.TrimSpace(exectest.Run(t, o).Stdout)
		}
		artifact, plain := policy(denied("/data/secret", "/data/mnt/secret", "/data/new")), policy("")
		for _, path := range []string{"/data/secret", "/data/mnt/secret", "/data/../data/secret"} {
			if got := run(artifact, "openat", path, "r"); !refusedAs(got, eacces) {
				t.Errorf("%s: %q", path, got)
			}
			if got := run(plain, "openat", path, "r"); got != "ok" {
				t.Errorf("control: %s: %q", path, got)
			}
		}
		if got := run(artifact, "openat", "/data/new", "c"); !refusedAs(got, eacces) {
			t.Errorf("create a denied file: %q", got)
		}
		for _, path := range []string{"/data/ok", "/data/mnt/ok"} {
			if got := run(artifact, "openat", path, "rw"); got != "ok" {
				t.Errorf("%s: %q", path, got)
			}
		}
		if got := run(policy(denied("/data/mnt")), "openat", "/data/mnt/ok", "r"); !refusedAs(got, eacces) {
			t.Errorf("denied mount: %q", got)
		}
		if _, err := os.Lstat(root + "/data/new"); !os.IsNotExist(err) {
			t.Errorf("left behind: %v", err)
		}
	})
}

// own gives a file to the box's user.
func own(t *testing.T, b *exectest.Box, path string) {
	t.Helper()
	if exectest.Self().Root() {
		if err := os.Lchown(path, b.User.UID, b.User.GID); err != nil {
			t.Fatal(err)
		}
	}
}

// A socket is made in place of the command, by a process that the mounts do not bind.
func Test_deny_binding_a_socket(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, dir := range []string{"/closed", "/kept", "/free"} {
			if err := os.Mkdir(b.Work+dir, 0o755); err != nil {
				t.Fatal(err)
			}
			own(t, b, b.Work+dir)
		}
		artifact := b.Policy(b.Base(exectest.Grants{More: `network: {unix: "granted", allow_bind: [0]}` + "\n" + denied(b.Work+"/closed", b.Work+"/missing") + protected("kept")}))
		const script = `
import socket, sys, os
for name in ("closed/s", "kept/s", "missing", "free/s"):
    try:
        socket.socket(socket.AF_UNIX).bind(sys.argv[1] + "/" + name)
        print(name, "ok")
    except OSError:
        print(name, "refused")
`
		wantRun(t, b.Run(artifact, py, "-c", script, b.Work), 0, "closed/s refused\nkept/s refused\nmissing refused\nfree/s ok")
		for _, dir := range []string{"/closed", "/kept"} {
			if left, err := os.ReadDir(b.Work + dir); err != nil || len(left) > 0 {
				t.Errorf("%s: %v, %v", dir, left, err)
			}
		}
	})
}
