package query_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

var (
	denied  = ir.Outcome{Kind: ir.OutcomeErrno, Errno: 1}
	killed  = ir.Outcome{Kind: ir.OutcomeKill}
	allowed = ir.Outcome{Kind: ir.OutcomeAllow}
	audited = ir.Outcome{Kind: ir.OutcomeAudit}
)

func files(paths ...string) []query.File {
	var list []query.File
	for _, p := range paths {
		list = append(list, query.File{Path: p})
	}
	return list
}

func TestRules(t *testing.T) {
	narrow := []ir.Change{{Kind: ir.ChangeProcesses, Value: 1}}
	run := func(argv ...string) query.Held {
		return query.Held{Kind: ir.EventExec, Argv: argv, Programs: files(argv[0])}
	}
	open := func(paths ...string) query.Held {
		return query.Held{Kind: ir.EventOpen, Files: files(paths...), Programs: files("/bin/cat")}
	}
	curl := ir.DynamicRule{On: ir.EventExec, Exe: "/usr/bin/curl", Then: denied}
	for _, tc := range []struct {
		name  string
		rules []ir.DynamicRule
		event query.Held
		want  ir.Outcome
		rule  int
		do    []int
	}{
		{"no rule", nil, run("/bin/ls"), allowed, query.NoRule, nil},
		{"other event", []ir.DynamicRule{{On: ir.EventOpen, Then: denied}}, run("/bin/ls"), allowed, query.NoRule, nil},
		{"always", []ir.DynamicRule{{On: ir.EventExec, Then: killed}}, run("/bin/ls"), killed, 0, nil},
		{"program", []ir.DynamicRule{curl}, run("/usr/bin/curl"), denied, 0, nil},
		{"another program", []ir.DynamicRule{curl}, run("/usr/bin/curly"), allowed, query.NoRule, nil},
		{"hard link", []ir.DynamicRule{curl}, query.Held{Kind: ir.EventExec, Programs: []query.File{{Path: "/w/x", Also: []string{"/usr/bin/curl"}}}}, denied, 0, nil},
		{"script of a denied interpreter", []ir.DynamicRule{curl}, query.Held{Kind: ir.EventExec, Programs: files("/w/s", "/usr/bin/curl")}, denied, 0, nil},
		{"argument", []ir.DynamicRule{{On: ir.EventExec, Argv: "evil", Then: denied}}, run("/bin/echo", "a", "so-evil-x"), denied, 0, nil},
		{"no such argument", []ir.DynamicRule{{On: ir.EventExec, Argv: "evil", Then: denied}}, run("/bin/echo", "ev", "il"), allowed, query.NoRule, nil},
		{"both conditions", []ir.DynamicRule{{On: ir.EventExec, Argv: "-f", Exe: "/bin/rm", Then: denied}}, run("/bin/ls", "-f"), allowed, query.NoRule, nil},
		{"first with an outcome decides", []ir.DynamicRule{{On: ir.EventExec, Then: audited}, {On: ir.EventExec, Then: denied}}, run("/bin/ls"), audited, 0, nil},
		{"a rule without outcome goes on", []ir.DynamicRule{{On: ir.EventExec, Do: narrow}, {On: ir.EventExec, Then: denied, Do: narrow}}, run("/bin/ls"), denied, 1, []int{0, 1}},
		{"list of allowed programs", []ir.DynamicRule{{On: ir.EventExec, Exe: "/bin/ls", Then: allowed}, {On: ir.EventExec, Then: denied}}, run("/bin/ls"), allowed, 0, nil},
		{"an allowed script does not allow its interpreter", []ir.DynamicRule{{On: ir.EventExec, Exe: "/w/s", Then: allowed, Do: narrow}, {On: ir.EventExec, Then: denied}},
			query.Held{Kind: ir.EventExec, Programs: files("/bin/sh", "/w/s")}, denied, 1, []int{0}},
		{"after exec, before", []ir.DynamicRule{{On: ir.EventExec, AfterExec: true, Then: denied}}, run("/bin/ls"), allowed, query.NoRule, nil},
		{"after exec", []ir.DynamicRule{{On: ir.EventExec, AfterExec: true, Then: denied}}, query.Held{Kind: ir.EventExec, AfterExec: true}, denied, 0, nil},
		{"path", []ir.DynamicRule{{On: ir.EventOpen, Path: "/etc/shadow", Then: denied}}, open("/etc/shadow"), denied, 0, nil},
		{"path is exact", []ir.DynamicRule{{On: ir.EventOpen, Path: "/etc", Then: denied}}, open("/etc/shadow"), allowed, query.NoRule, nil},
		{"pattern", []ir.DynamicRule{{On: ir.EventOpen, Path: "/etc/**", Then: denied}}, open("/etc/a/b"), denied, 0, nil},
		{"pattern beneath write grants", []ir.DynamicRule{{On: ir.EventOpen, Path: "**/.git/hooks/*", Then: denied}}, open("/w/a/.git/hooks/x"), denied, 0, nil},
		{"pattern elsewhere", []ir.DynamicRule{{On: ir.EventOpen, Path: "**/.git/hooks/*", Then: denied}}, open("/v/.git/hooks/x"), allowed, query.NoRule, nil},
		{"one of two files", []ir.DynamicRule{{On: ir.EventOpen, Path: "/a", Then: denied}}, open("/b", "/a"), denied, 0, nil},
		{"one of two files does not allow", []ir.DynamicRule{{On: ir.EventOpen, Path: "/a", Then: allowed}, {On: ir.EventOpen, Then: denied}}, open("/b", "/a"), denied, 1, nil},
		{"program of the caller", []ir.DynamicRule{{On: ir.EventOpen, Exe: "/bin/cat", Then: denied}}, open("/a"), denied, 0, nil},
		{"unknown program", []ir.DynamicRule{{On: ir.EventOpen, Exe: "/bin/cat", Then: allowed}, {On: ir.EventOpen, Then: denied}}, query.Held{Kind: ir.EventOpen}, denied, 1, nil},
	} {
		got := query.Rules(tc.rules, &tc.event, []string{"/w"}, func(int) uint64 { return 1 })
		if got.Outcome != tc.want || got.Rule != tc.rule || !slices.Equal(got.Do, tc.do) {
			t.Errorf("%s: got %+v, want %v by rule %d, changes of %v", tc.name, got, tc.want, tc.rule, tc.do)
		}
	}
}

func TestRulesAddresses(t *testing.T) {
	names := func(a netip.Addr) []string {
		if a == netip.MustParseAddr("192.0.2.7") {
			return []string{"api.example.com", "cdn.example"}
		}
		return nil
	}
	host := func(host string) ir.DynamicRule { return ir.DynamicRule{On: ir.EventNetwork, Host: host, Then: denied} }
	allow := func(r ir.DynamicRule) ir.DynamicRule { r.Then = allowed; return r }
	port, udp := ir.DynamicRule{On: ir.EventConnect, Port: 443, Then: denied}, ir.DynamicRule{On: ir.EventNetwork, Protocol: ir.UDP, Then: denied}
	for _, tc := range []struct {
		rule     ir.DynamicRule
		protocol ir.Protocols
		to       string
		want     bool
	}{
		{port, ir.TCP, "192.0.2.7:443", true},
		{port, ir.TCP, "192.0.2.7:444", false},
		{port, ir.UDP, "[::1]:443", true},
		{ir.DynamicRule{On: ir.EventSend, Port: 443, Then: denied}, ir.UDP, "192.0.2.7:443", false},
		{udp, ir.UDP, "192.0.2.7:443", true},
		{udp, ir.TCP, "192.0.2.7:443", false},
		{port, ir.ICMP, "192.0.2.7:443", false},
		{host("192.0.2.0/24"), ir.TCP, "192.0.2.7:1", true},
		{host("192.0.2.0/24"), ir.TCP, "192.0.3.7:1", false},
		{host("192.0.2.0/24"), ir.TCP, "[::ffff:192.0.2.7]:1", true},
		{host("192.0.2.0/24"), ir.TCP, "[64:ff9b::c000:207]:1", true},
		{host("127.0.0.0/8"), ir.TCP, "0.0.0.0:1", true},
		{host("0.0.0.0/32"), ir.TCP, "0.0.0.0:1", true},
		{host("::1/128"), ir.TCP, "[::]:1", true},
		{host("fe80::/10"), ir.TCP, "[fe80::1%1]:1", true},
		{host("api.example.com"), ir.TCP, "192.0.2.7:1", true},
		{host("cdn.example"), ir.TCP, "[::ffff:192.0.2.7]:1", true},
		{host("cdn.example"), ir.TCP, "[64:ff9b::c000:207]:1", true},
		{host("*.example.com"), ir.TCP, "192.0.2.7:1", true},
		{host("*.cdn.example"), ir.TCP, "192.0.2.7:1", false},
		{host("api.example.com"), ir.TCP, "192.0.2.8:1", false},
	} {
		e := query.Held{Kind: ir.EventConnect, Protocol: tc.protocol, To: netip.MustParseAddrPort(tc.to), Names: names}
		if got := query.Rules([]ir.DynamicRule{tc.rule}, &e, nil, nil).Outcome == denied; got != tc.want {
			t.Errorf("%+v, %v %s: denied %v, want %v", tc.rule, tc.protocol, tc.to, got, tc.want)
		}
	}
	// What may lead elsewhere is not let through for where it leads.
	for to, want := range map[string]ir.Outcome{"192.0.2.7:1": allowed, "[::ffff:192.0.2.7]:1": allowed, "[64:ff9b::c000:207]:1": denied} {
		e := query.Held{Kind: ir.EventConnect, Protocol: ir.TCP, To: netip.MustParseAddrPort(to), Names: names}
		rules := []ir.DynamicRule{allow(host("192.0.2.0/24")), {On: ir.EventConnect, Then: denied}}
		if got := query.Rules(rules, &e, nil, nil).Outcome; got != want {
			t.Errorf("%s: %v, want %v", to, got, want)
		}
	}
}

func TestLeaves(t *testing.T) {
	n := ir.Net{Destinations: ir.DestinationsAllowed, Resolver: true, Rules: []ir.NetRule{
		{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "10.0.0.0/8", Ports: []ir.NetPort{{Lo: 80, Hi: 81}}},
		{Protocols: ir.UDP, Kind: ir.TargetHost, Target: "*.example.com", Ports: []ir.NetPort{{Lo: 53, Hi: 53}}},
	}}
	learned := func(a netip.Addr) []string {
		if a == netip.MustParseAddr("192.0.2.7") {
			return []string{"api.example.com"}
		}
		return nil
	}
	w := query.NewNetwork(&n, func(string) []netip.Addr { return nil }, nil)
	for _, tc := range []struct {
		protocol ir.Protocols
		to       string
		want     bool
	}{
		{ir.TCP, "10.1.2.3:81", true}, {ir.TCP, "10.1.2.3:82", false}, {ir.UDP, "10.1.2.3:80", false}, {ir.TCP, "11.0.0.1:80", false},
		{ir.UDP, "192.0.2.7:53", true}, {ir.TCP, "192.0.2.7:53", false}, {ir.UDP, "192.0.2.7:54", false}, {ir.UDP, "192.0.2.8:53", false},
	} {
		if got := w.Leaves(tc.protocol, netip.MustParseAddrPort(tc.to), learned); got != tc.want {
			t.Errorf("%v %s: %v, want %v", tc.protocol, tc.to, got, tc.want)
		}
	}
	nothing := query.NewNetwork(&ir.Net{Destinations: ir.DestinationsAllowed}, nil, nil)
	if nothing.Leaves(ir.TCP, netip.MustParseAddrPort("10.1.2.3:80"), learned) {
		t.Error("an empty list leaves something")
	}
}

func TestRulesCount(t *testing.T) {
	rules := []ir.DynamicRule{{On: ir.EventExec, Argv: "x", Count: 3, Then: denied}}
	counts := map[int]uint64{}
	count := func(rule int) uint64 { counts[rule]++; return counts[rule] }
	var got []ir.OutcomeKind
	for _, arg := range []string{"x", "y", "x", "x", "x"} {
		got = append(got, query.Rules(rules, &query.Held{Kind: ir.EventExec, Argv: []string{arg}}, nil, count).Outcome.Kind)
	}
	if want := []ir.OutcomeKind{1, 1, 1, 3, 3}; !slices.Equal(got, want) {
		t.Errorf("outcomes %v, want %v: only matching events count", got, want)
	}
}

func TestDenied(t *testing.T) {
	closed := []string{"/w/secret", "/w/a/dir"}
	for _, tc := range []struct {
		file         query.File
		reads, moves string
	}{
		{query.File{Path: "/w/secret"}, "/w/secret", "/w/secret"},
		{query.File{Path: "/w/secrets"}, "", ""},
		{query.File{Path: "/w/a/dir/x"}, "/w/a/dir", "/w/a/dir"},
		{query.File{Path: "/w/a"}, "", "/w/a/dir"},
		{query.File{Path: "/w/hard", Also: []string{"/w/secret"}}, "/w/secret", "/w/secret"},
		{query.File{Path: "/"}, "", "/w/secret"},
		{query.File{}, "", ""},
	} {
		if reads, moves := query.Denied(closed, &tc.file), query.MovesDenied(closed, &tc.file); reads != tc.reads || moves != tc.moves {
			t.Errorf("%+v: closed by %q, moving closed by %q; want %q, %q", tc.file, reads, moves, tc.reads, tc.moves)
		}
	}
}
