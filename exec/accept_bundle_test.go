package exec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// A file to which the certificate is added is read where the policy grants it and nowhere else: where a sandbox has put a
// link to another file in its place, the next run does not tell of that.
func Test_inject_ca_link(t *testing.T) {
	exectest.Helper(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		file, granted, secret := filepath.Join(b.Work, "ca.pem"), filepath.Join(b.Work, "real.pem"), filepath.Join(b.Outside, "secret")
		b.File(granted, "its text\n")
		b.File(secret, "its text\n")
		policy := b.Policy(b.Base(exectest.Grants{More: `http: {allow: ["GET 127.0.0.1/*"], inject_ca: ["` + file + `"]}`}))
		for target, want := range map[string]string{granted: "its text\n-----BEGIN CERTIFICATE-----\n", secret: ""} {
			_ = os.Remove(file)
			if err := os.Symlink(target, file); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{file, target} {
				r := b.Run(policy, "/bin/cat", path)
				if r.Code > 1 || (r.Code == 0) != (want != "") || !strings.HasPrefix(r.Stdout, want) || want == "" && r.Stdout != "" {
					t.Errorf("%s, a link to %s: exit %d, %q %q", path, target, r.Code, r.Stdout, r.Stderr)
				}
			}
		}
	})
}
