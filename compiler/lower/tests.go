package lower

import (
	"net"
	"strconv"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

var testsFields = []string{"tests"}

// Tests lowers the policy's assertions about itself.
func Tests(u *Unit) {
	for _, it := range u.Policy.Tests.Items {
		t := testEvent(&it.V.Case)
		t.Name, t.Allow, t.Origin = it.V.Name.V, it.V.Expect.V == "allow", u.ref(it.Origin)
		u.Program.Tests = append(u.Program.Tests, t)
	}
}

func testEvent(c *policy.TestCase) ir.Test {
	switch {
	case c.Open.Set:
		return ir.Test{Kind: ir.TestOpen, Target: c.Open.V, For: c.For.V}
	case c.Connect.Set:
		e, _ := policy.ParseConnect(c.Connect.V)
		return ir.Test{Kind: ir.TestConnect, Target: Address(e)}
	case c.Bind.Set:
		e, _ := policy.ParseBindEndpoint(c.Bind.V)
		return ir.Test{Kind: ir.TestBind, Target: Address(e)}
	}
	if c.HTTP.Set {
		return ir.Test{Kind: ir.TestHTTP, Target: c.HTTP.V}
	}
	return ir.Test{Kind: ir.TestSyscall, Target: c.Syscall.V, Args: c.Args.Values()}
}

// Address returns an endpoint as tests and explanations write it: "tcp 127.0.0.1:80", "tcp *:8080".
func Address(e policy.Endpoint) string {
	host := e.Host
	if e.Addr.IsValid() {
		host = e.Addr.String()
	}
	if host == "" {
		host = "*"
	}
	return e.Proto + " " + net.JoinHostPort(host, strconv.Itoa(int(e.Port)))
}
