package exec_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// secretSetup puts a secret where nothing is granted, a file where reading is, and links to both where writing is.
func secretSetup(t *testing.T, b *exectest.Box) []string {
	for _, path := range []string{b.Work, b.Outside} {
		clear(t, path)
	}
	secret := b.File(b.Outside+"/secret", "S")
	b.File(b.Outside+"/other", "o")
	b.File(b.Work+"/mine", "m")
	b.Link(secret, b.Work+"/link")
	b.Link("../outside/secret", b.Work+"/relative")
	b.Link(b.Work+"/link", b.Work+"/chain")
	b.Link(b.Outside, b.Work+"/dirlink")
	return []string{"$SECRET", secret}
}

func clear(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(dir + "/" + entry.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

func withProc(*exectest.Box) exectest.Grants {
	return exectest.Grants{Read: []string{"/proc"}, More: `filesystem: proc: "host"`}
}

func Test_escape_09_symlinks_out_of_the_write_grant(t *testing.T) {
	suite{setup: secretSetup, attempts: []attempt{
		{"escape_09_read", []string{"openat", "$WORK/link", "r"}, eacces, works},
		{"escape_09_write", []string{"openat", "$WORK/link", "w"}, eacces, works},
		{"escape_09_truncate_on_open", []string{"openat", "$WORK/link", "t"}, eacces, works},
		{"escape_09_truncate", []string{"call", "truncate", "s:$WORK/link", "0"}, eacces, works},
		{"escape_09_relative", []string{"openat", "$WORK/relative", "r"}, eacces, works},
		{"escape_09_chain", []string{"openat", "$WORK/chain", "rw"}, eacces, works},
		{"escape_09_directory", []string{"openat", "$WORK/dirlink/secret", "r"}, eacces, works},
		{"escape_09_list", []string{"openat", "$WORK/dirlink", "d"}, eacces, works},
		{"escape_09_create", []string{"openat", "$WORK/dirlink/new", "c"}, eacces, works},
		{"escape_09_chmod", []string{"call", "chmod", "s:$WORK/link", "0600"}, refused, works},
		{"escape_09_new_link", []string{"exec", "/bin/sh", "-c", "ln -s $SECRET new && exec $0 openat new r", "$PROBE"}, eacces, works},
	}}.withProbe().run(t)
}

// withProbe makes $PROBE the probe's path, for attempts that go through a shell.
func (s suite) withProbe() suite {
	setup := s.setup
	s.setup = func(t *testing.T, b *exectest.Box) []string {
		return append(setup(t, b), "$PROBE", b.Probe)
	}
	return s
}

func Test_escape_10_symlink_swap_race(t *testing.T) {
	if testing.Short() {
		t.Skip("100000 opens")
	}
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Outside+"/secret", "S")
		o := b.Opts(b.Policy(b.Base(exectest.Grants{})), b.Probe, "swap-race", b.Work, secret, raced(u, 100000))
		o.Timeout = 3 * time.Minute
		if got := strings.TrimSpace(exectest.Run(t, o).Stdout); got != "value leaks=none opened=some refused=some" {
			t.Errorf("inside: %q, want no leaks, and that the race was run", got)
		}
		clear(t, b.Work)
		if got := b.Control("swap-race", b.Work, secret, "10000"); !strings.HasPrefix(got, "value leaks=some") {
			t.Errorf("outside: %q, want leaks", got)
		}
	})
}

func Test_escape_12_aliases_in_proc(t *testing.T) {
	suite{grants: withProc, setup: secretSetup, attempts: []attempt{
		{"escape_12_self_root", []string{"openat", "/proc/self/root$SECRET", "r"}, eacces, works},
		{"escape_12_self_cwd", []string{"openat", "/proc/self/cwd/../outside/secret", "r"}, eacces, works},
		{"escape_12_thread_self_cwd", []string{"openat", "/proc/thread-self/cwd/../outside/secret", "r"}, eacces, works},
		{"escape_12_reopen_for_reading", []string{"reopen", "$SECRET", "r"}, eacces, works},
		{"escape_12_reopen_for_writing", []string{"reopen", "$SECRET", "w"}, eacces, works},
		{"escape_12_reopen_directory", []string{"reopen", "$OUT", "d"}, eacces, works},
		{"escape_12_dev_fd", []string{"exec", "/bin/sh", "-c", "exec $0 openat /dev/fd/../root$SECRET r", "$PROBE"}, eacces, works},
		{"escape_12_dots", []string{"openat", "$WORK/../outside/./secret", "r"}, eacces, works},
		{"escape_12_slashes", []string{"openat", "//$SECRET", "r"}, eacces, works},
		{"escape_12_parent_root", []string{"openat", "/proc/1/root$SECRET", "r"}, refused, mayRefuse},
	}}.withProbe().run(t)
}

func Test_escape_15_file_handles(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		secret := b.File(b.Outside+"/secret", "S")
		artifact := b.Policy(b.Base(exectest.Grants{}))
		handle := strings.Fields(b.RootControl("handle", secret))
		if len(handle) != 3 {
			t.Skipf("this file system has no handles: %q", handle)
		}
		open := []string{"open-handle", b.Work, handle[1], handle[2]}
		if got := b.Attempt(artifact, open...); !refusedAs(got, eperm) {
			t.Errorf("open_by_handle_at inside: %q, want errno EPERM", got)
		}
		if got := b.Attempt(artifact, "handle", secret); !refusedAs(got, refused) {
			t.Errorf("name_to_handle_at inside: %q, want a refusal", got)
		}
		if got := b.RootControl(open...); got != "ok" {
			t.Errorf("open_by_handle_at outside as root: %q, want ok", got)
		}
	})
}

// Every call that reaches a file must come to the same verdict, old or new.
func Test_escape_16_all_calls_one_verdict(t *testing.T) {
	suite{setup: secretSetup, attempts: outsideAttempts}.run(t)
}

// Where nothing can be created, openat2 is not withheld (its mode of new files is out of the filter's sight), and
// Landlock decides about it as about every other call.
func Test_escape_16_openat2_without_write_grants(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		words := append([]string{"$WORK", b.Work, "$OUT", b.Outside}, secretSetup(t, b)...)
		granted := b.File(filepath.Join(b.Dir("granted"), "file"), "x")
		artifact := b.Policy(fmt.Sprintf("filesystem: read: [\"/usr\", \"/lib\", {path: \"/lib64\", optional: true}, %q, %q]\n",
			filepath.Dir(b.Probe), filepath.Dir(granted)))
		if got := b.Attempt(artifact, "openat2", granted, "r", "none"); got != "ok" {
			t.Errorf("openat2 of a granted file: %q, want ok", got)
		}
		for _, mode := range []string{"r", "w"} {
			args := replaceAll([]string{"openat2", "$SECRET", mode, "none"}, words)
			if got := b.Control(args...); got != "ok" {
				t.Errorf("%q outside a sandbox: %q, want ok", args, got)
			}
			if got := b.Attempt(artifact, args...); got != "errno EACCES" {
				t.Errorf("%q: %q, want errno EACCES", args, got)
			}
		}
	})
}

var outsideAttempts = slices.Concat(readAttempts, changeAttempts)

var readAttempts = []attempt{
	{"escape_16_open", []string{"open", "$SECRET", "r"}, eacces, works},
	{"escape_16_openat", []string{"openat", "$SECRET", "r"}, eacces, works},
	{"escape_16_openat_directory_descriptor", []string{"openat-dir", "$OUT", "secret", "r"}, eacces, works},
	{"escape_16_openat_parent_of_descriptor", []string{"openat-dir", "$WORK", "../outside/secret", "r"}, eacces, works},
	{"escape_16_openat2", []string{"openat2", "$SECRET", "r", "none"}, absent, works},
	{"escape_16_openat2_no_symlinks", []string{"openat2", "$SECRET", "r", "no_symlinks"}, absent, works},
	{"escape_16_openat2_no_magiclinks", []string{"openat2", "$SECRET", "r", "no_magiclinks"}, absent, works},
	{"escape_16_openat2_in_root", []string{"openat2", "$SECRET", "r", "in_root"}, absent, harmful},
	{"escape_16_openat2_cached", []string{"openat2", "$SECRET", "r", "cached"}, absent, notRefused},
}

var changeAttempts = []attempt{
	{"escape_16_open_for_writing", []string{"open", "$SECRET", "w"}, eacces, works},
	{"escape_16_creat", []string{"creat", "$SECRET"}, eacces, works},
	{"escape_16_creat_new", []string{"creat", "$OUT/new"}, eacces, works},
	{"escape_16_openat_for_writing", []string{"openat", "$SECRET", "w"}, eacces, works},
	{"escape_16_openat_truncating", []string{"openat", "$SECRET", "t"}, eacces, works},
	{"escape_16_openat_new", []string{"openat", "$OUT/new", "c"}, eacces, works},
	{"escape_16_openat2_for_writing", []string{"openat2", "$SECRET", "w", "none"}, absent, works},
	{"escape_16_truncate", []string{"call", "truncate", "s:$SECRET", "0"}, eacces, works},
	{"escape_16_ftruncate", []string{"ftruncate", "$SECRET"}, eacces, works},
	{"escape_16_mmap_shared", []string{"mmap-shared-write", "$SECRET"}, eacces, works},
	{"escape_16_chmod", []string{"call", "chmod", "s:$SECRET", "0600"}, refused, works},
	{"escape_16_fchmodat", []string{"call", "fchmodat", "-100", "s:$SECRET", "0600"}, refused, works},
	{"escape_16_fchmodat2", []string{"call", "fchmodat2", "-100", "s:$SECRET", "0600", "0"}, refused, works},
	{"escape_16_fchmodat2_o_path", []string{"chmod-opath", "$SECRET"}, refused, works},
	{"escape_16_chown", []string{"call", "chown", "s:$SECRET", "-1", "-1"}, refused, works},
	{"escape_16_lchown", []string{"call", "lchown", "s:$SECRET", "-1", "-1"}, refused, works},
	{"escape_16_fchownat", []string{"call", "fchownat", "-100", "s:$SECRET", "-1", "-1", "0"}, refused, works},
	{"escape_16_utime", []string{"call", "utime", "s:$SECRET", "0"}, refused, works},
	{"escape_16_utimes", []string{"call", "utimes", "s:$SECRET", "0"}, refused, works},
	{"escape_16_futimesat", []string{"call", "futimesat", "-100", "s:$SECRET", "0"}, refused, works},
	{"escape_16_utimensat", []string{"call", "utimensat", "-100", "s:$SECRET", "0", "0"}, refused, works},
	{"escape_16_setxattr", []string{"call", "setxattr", "s:$SECRET", "s:user.a", "s:x", "1", "0"}, refused, works},
	{"escape_16_lsetxattr", []string{"call", "lsetxattr", "s:$SECRET", "s:user.a", "s:x", "1", "0"}, refused, works},
	{"escape_16_setxattrat", []string{"call", "setxattrat", "-100", "s:$SECRET", "0", "s:user.a", "b:16", "16"}, absent, works},
	{"escape_16_removexattr", []string{"call", "removexattr", "s:$SECRET", "s:user.a"}, refused, notRefused},
	{"escape_16_file_setattr", []string{"call", "file_setattr", "-100", "s:$SECRET", "b:24", "24", "0"}, absent, notRefused},
	{"escape_16_mkdir", []string{"call", "mkdir", "s:$OUT/d", "0755"}, eacces, works},
	{"escape_16_mkdirat", []string{"call", "mkdirat", "-100", "s:$OUT/d", "0755"}, eacces, works},
	{"escape_16_mknod_fifo", []string{"call", "mknod", "s:$OUT/p", "0o10644", "0"}, eacces, works},
	{"escape_16_mknodat_regular", []string{"call", "mknodat", "-100", "s:$OUT/r", "0o100644", "0"}, eacces, works},
	{"escape_16_symlink", []string{"call", "symlink", "s:x", "s:$OUT/l"}, eacces, works},
	{"escape_16_unlink", []string{"call", "unlink", "s:$SECRET"}, eacces, works},
	{"escape_16_unlinkat", []string{"call", "unlinkat", "-100", "s:$SECRET", "0"}, eacces, works},
	{"escape_14_rename_out", []string{"call", "rename", "s:$SECRET", "s:$WORK/stolen"}, acrossGrants, works},
	{"escape_14_rename_in", []string{"call", "rename", "s:$WORK/mine", "s:$SECRET"}, acrossGrants, works},
	{"escape_14_renameat2_exchange", []string{"call", "renameat2", "-100", "s:$WORK/mine", "-100", "s:$SECRET", "2"}, acrossGrants, works},
	{"escape_14_rename_beside", []string{"call", "rename", "s:$SECRET", "s:$OUT/moved"}, eacces, works},
	{"escape_14_link", []string{"call", "link", "s:$SECRET", "s:$WORK/hard"}, acrossGrants, works},
	{"escape_14_linkat_follow", []string{"call", "linkat", "-100", "s:$WORK/link", "-100", "s:$WORK/hard", "0x400"}, acrossGrants, works},
	{"escape_14_linkat_empty_path", []string{"link-empty", "$SECRET", "$WORK/hard"}, []string{"errno EXDEV", "errno EACCES", "errno ENOENT", "errno EPERM"}, mayRefuse},
}

// acrossGrants: Landlock answers EXDEV where a copy would be allowed on its own, so that mv copies.
var acrossGrants = []string{"errno EXDEV", "errno EACCES"}

// What may be read may still not be changed, by any call.
func Test_escape_16_read_grant_is_read_only(t *testing.T) {
	suite{
		grants:   func(b *exectest.Box) exectest.Grants { return exectest.Grants{Read: []string{b.Outside}} },
		setup:    secretSetup,
		attempts: changeAttempts,
	}.run(t)
}

// A failed attempt must not have changed anything on its way.
func Test_escape_16_nothing_changed(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}))
		words := append([]string{"$WORK", b.Work, "$OUT", b.Outside}, secretSetup(t, b)...)
		before := listing(t, b.Outside)
		for _, a := range outsideAttempts {
			b.Attempt(artifact, replaceAll(a.args, words)...)
		}
		if after := listing(t, b.Outside); after != before {
			t.Errorf("outside the grants before:\n%s\nafter:\n%s", before, after)
		}
	})
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	text, err := exec.Command("/bin/sh", "-c", "stat -c '%n %A %U %s %Y' "+dir+"/*; cat "+dir+"/*").CombinedOutput()
	if err != nil {
		t.Fatalf("list %s: %v\n%s", dir, err, text)
	}
	return string(text)
}

func Test_escape_18_special_files(t *testing.T) {
	suite{setup: secretSetup, attempts: []attempt{
		{"escape_18_character_device", []string{"call", "mknod", "s:$WORK/dev", "0o20600", "0x103"}, refused, worksForRoot},
		{"escape_18_block_device", []string{"call", "mknodat", "-100", "s:$WORK/dev", "0o60600", "0x700"}, refused, worksForRoot},
	}}.run(t)
}
