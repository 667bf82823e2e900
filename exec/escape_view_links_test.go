package exec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// A command that could replace a link on the way of a rule would have the next run guard another file.
func TestLinksOfRulesStay(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		w := b.Dir("w")
		b.File(w+"/.env.production", "secret")
		b.Dir("w/.git")
		b.Dir("w/tools")
		b.Dir("w/tools/hooks")
		b.File(w+"/tools/hooks/pre-commit", "hook")
		b.Link(".env.production", w+"/.env")
		b.Link("../tools/hooks", w+"/.git/hooks")
		artifact := b.Policy(b.Base(exectest.Grants{Write: []string{w}}) + fmt.Sprintf(`
filesystem: {deny: ["%s/.env"], protect: ["**/.git/hooks/**"]}`, w))
		r := b.Sh(artifact, `cd `+w+`
rm .env; mv .env x; ln -sfn /etc/passwd .env; rm .git/hooks; mv .git/hooks x; mv .git y; echo x > .git/hooks/pre-commit; readlink .env .git/hooks`)
		if want := ".env.production\n../tools/hooks\n"; r.Stdout != want {
			t.Errorf("links: %q, want %q\n%s", r.Stdout, want, r.Stderr)
		}
		wantFailure(t, b.Run(artifact, "/bin/cat", w+"/.env.production"), "Permission denied")
	})
}

// What a rule of one run mounts, a command of the run before may have replaced by a link.
func TestSourcesOfMountsArePlanted(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		w := b.Dir("w")
		b.Dir("w/data")
		b.File(b.Outside+"/key", "secret")
		artifact := b.Policy(b.Base(exectest.Grants{Write: []string{w}}) + fmt.Sprintf(`
filesystem: mount: ["/data:%s/data", "/other:%[1]s"]`, w))
		wantRun(t, b.Sh(artifact, "cd "+w+" && echo x > /data/f && cat data/f && rm -r data && ln -s "+b.Outside+" /other/data"), 0, "x")
		if r := b.Run(artifact, "/bin/cat", "/data/key"); r.Code != 125 || !strings.Contains(r.Stderr, "could have placed that link") {
			t.Errorf("exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}

// A denial holds for what the executor shows, too.
func TestDenyAboveShownFiles(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{}) + `
filesystem: deny: ["/etc/hosts"]`)
		wantFailure(t, b.Run(artifact, "/bin/cat", "/etc/hosts"), "Permission denied")
		wantRun(t, b.Run(b.Policy(`filesystem: {read: ["/"], deny: ["/etc"]}`), "/bin/echo", "x"), 0, "x")
	})
}
