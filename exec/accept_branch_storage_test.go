package exec_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// What other sandboxes keep in the default storage is none of a command's that may write to all around it: it would decide what
// they commit. A sandbox without mounts cannot be kept from it, so that the user is told.
func Test_branch_storage_of_others(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := newBranched(t, u)
		tmp := b.Dir("tmp")
		env := []string{"TMPDIR=" + tmp, "XDG_RUNTIME_DIR="}
		run := func(policy string, argv ...string) exectest.Result {
			o := b.Opts(policy, argv...)
			o.Env = append(o.Env, env...)
			return exectest.Run(t, o)
		}
		keeps := b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}, More: fmt.Sprintf("filesystem: {\n\tworkdir: %q\n\ton_exit: \"keep\"\n}\n", b.Work)}))
		if r := run(keeps, "/bin/sh", "-c", "echo mine >mine"); r.Code != 0 {
			t.Fatalf("exit %d, %s", r.Code, r.Stderr)
		}
		storage := fmt.Sprintf("%s/sandlock-cow-%d", tmp, u.UID)
		entries, err := os.ReadDir(storage)
		if err != nil || len(entries) != 1 {
			t.Fatalf("%v, %v", entries, err)
		}
		kept := storage + "/" + entries[0].Name()
		writes := func(strict string) string {
			return b.Policy(b.Base(exectest.Grants{Write: []string{tmp, "/dev/null"}, More: "program: strict_lifetime: " + strict + "\n"}))
		}
		const hostile = `cd "$1"; cat "$2/upper/mine"; echo x >>"$2/upper/mine"; echo y >"$2/upper/planted"; mv "$3" away; rm -rf "$2"; mkdir "$3"; chmod 777 "$3"; : >beside; exit 0`
		r := run(writes("true"), "/bin/sh", "-c", hostile, "sh", tmp, kept, storage)
		if r.Code != 0 || strings.Contains(r.Stdout, "mine") || strings.Contains(r.Stderr, "sandlock-exec:") {
			t.Errorf("exit %d, read %q, said %q", r.Code, r.Stdout, r.Stderr)
		}
		wantFile(t, kept+"/upper/mine", "mine\n")
		wantFile(t, tmp+"/beside", "")
		wantMissing(t, kept+"/upper/planted", tmp+"/away")

		// Another branch of the same storage is made and committed meanwhile, whatever else its command may read.
		reads := b.Policy(b.Base(exectest.Grants{Read: []string{tmp}, Write: []string{"/dev/null"}, More: fmt.Sprintf("filesystem: workdir: %q\n", b.Work)}))
		r = run(reads, "/bin/sh", "-c", `ls "$1"; echo other >other`, "sh", storage)
		if r.Code != 0 || r.Stdout != "" || !strings.Contains(r.Stderr, "Permission denied") {
			t.Errorf("exit %d, listed %q, said %q", r.Code, r.Stdout, r.Stderr)
		}
		wantFile(t, b.Work+"/other", "other\n")

		r = run(writes("false"), "/bin/true")
		if r.Code != 0 || !strings.Contains(r.Stderr, "the command can write to "+storage+", where other sandboxes keep their changes") {
			t.Errorf("exit %d, said %q", r.Code, r.Stderr)
		}
	})
}
