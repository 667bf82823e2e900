package exec_test

import (
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// program.strict_lifetime "prefer": with namespaces where they can be had, without and with a word about it where not. The
// command is confined either way.
func Test_strict_lifetime_preferred(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		r := b.Sh(b.Policy(preferring), asks)
		if r.Code != 0 || r.Stdout != "pid 2\nclosed\n" || strings.Contains(r.Stderr, "namespaces") {
			t.Errorf("exit %d, %q, %q", r.Code, r.Stdout, r.Stderr)
		}
	})
}

const (
	preferring = `program: strict_lifetime: "prefer"
filesystem: read: ["/usr", "/lib", {path: "/lib64", optional: true}, "/bin"]`
	asks = `echo pid $$; cat /etc/group || echo closed`
)

func Test_strict_lifetime_preferred_in_vain(t *testing.T) {
	exectest.WithoutNamespaces(t, func(t *testing.T, b *exectest.Box) {
		r := b.Sh(b.Policy(preferring), asks)
		if r.Code != 0 || r.Stdout == "pid 2\nclosed\n" || !strings.HasSuffix(r.Stdout, "\nclosed\n") {
			t.Errorf("exit %d, %q", r.Code, r.Stdout)
		}
		if !strings.Contains(r.Stderr, "program.strict_lifetime: the command starts without namespaces") {
			t.Errorf("no word about it: %q", r.Stderr)
		}
		// Required, it is refused.
		r = b.Sh(b.Policy(strings.Replace(preferring, `"prefer"`, "true", 1)), asks)
		if r.Code != 125 || r.Stdout != "" || !strings.Contains(r.Stderr, "program.strict_lifetime") {
			t.Errorf("exit %d, %q, %q", r.Code, r.Stdout, r.Stderr)
		}
	})
}
