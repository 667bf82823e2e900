package exec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Names in rules are looked up when the sandbox starts; localhost is one that every host can resolve without a network.
func Test_network_3_12_names_at_start(t *testing.T) {
	exectest.Helper(t)
	l := listen(t, "tcp4", "127.0.0.1:0")
	other := listen(t, "tcp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf("network: allow: [\"localhost:%s\", \"udp://fixed.test:9\"]\nnetwork: hosts: \"fixed.test\": [\"192.0.2.1\"]", port(l))}))
		checkAllowed(t, b, policy, []allowed{
			{"address_of_a_name", []string{"connect", l.Addr().String(), stream, "0"}, "ok"},
			{"other_port", []string{"connect", other.Addr().String(), stream, "0"}, "errno ECONNREFUSED"},
			{"other_address", []string{"connect", "127.0.0.2:" + port(l), stream, "0"}, "errno ECONNREFUSED"},
			{"fixed_name_other_protocol", []string{"connect", "192.0.2.1:9", stream, "0"}, "errno ECONNREFUSED"},
		})
		refuse := func(name, network string, want ...string) {
			t.Run(name, func(t *testing.T) {
				r := b.Run(b.Policy(b.Base(exectest.Grants{More: network})), b.Probe, "call", "getpid")
				if r.Code != 125 {
					t.Errorf("exit code %d, want 125; stderr %q", r.Code, r.Stderr)
				}
				for _, w := range want {
					if !strings.Contains(r.Stderr, w) {
						t.Errorf("stderr %q, want %q in it", r.Stderr, w)
					}
				}
			})
		}
		refuse("unknown_name", `network: allow: ["tcp://127.0.0.1:9", "no-such-name.invalid:443", "tcp://no-such-name.invalid:80"]`,
			":15:39: network.allow[1]: resolve no-such-name.invalid: ")
		refuse("private_name", `network: {private: true, allow: ["localhost:443"]}`,
			"network.allow[0]: resolve localhost: 127.0.0.1 is a private address, which network.private refuses")
	})
}

// What the author of a policy wrote as an address is meant.
func Test_network_fixed_private_address(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf("network: {private: true, allow: [\"db.test:%s\"], hosts: \"db.test\": [\"127.0.0.1\"]}", port(l))}))
		if got := b.Attempt(policy, "connect", l.Addr().String(), stream, "0"); got != "ok" {
			t.Errorf("connect: %s, want ok", got)
		}
	})
}

// A helper that others may write is not started.
func Test_network_helper_refused(t *testing.T) {
	helper := exectest.Helper(t)
	b := exectest.NewBox(t, exectest.Self())
	policy := b.Policy(b.Base(exectest.Grants{Write: []string{helper[:strings.LastIndex(helper, "/")]}, More: `network: allow: ["localhost:9"]`}))
	r := b.Run(policy, b.Probe, "call", "getpid")
	if want := "which the policy lets the command write"; r.Code != 125 || !strings.Contains(r.Stderr, want) {
		t.Errorf("exit code %d, stderr %q; want 125 and %q", r.Code, r.Stderr, want)
	}
}
