package query

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Ruling is the answer to an event: whether it may happen, why in words, and the rule that decided or, for a denial
// that no rule made, the rule that came closest.
type Ruling struct {
	Allowed bool
	Reason  string
	Rule    string // the rule as goldens write it; "" if none decided
	Origin  ir.OriginRef
}

// Event answers what a test or an explanation asks about, on one architecture. The error says that the event itself
// makes no sense, such as a system call that the architecture does not have.
func Event(p *ir.Program, arch abi.Arch, t *ir.Test) (Ruling, error) {
	f, ok := p.Filter(arch)
	if !ok {
		return Ruling{}, fmt.Errorf("the program has no filter for %s", arch)
	}
	switch t.Kind {
	case ir.TestOpen:
		return open(p, f, t)
	case ir.TestConnect:
		return socketEvent(p, f, t.Target, abi.NetConnectTCP, "connect")
	case ir.TestBind:
		return socketEvent(p, f, t.Target, abi.NetBindTCP, "bind", "listen")
	case ir.TestSyscall:
		return call(f, t)
	case ir.TestHTTP:
		return request(&p.HTTP, t.Target)
	}
	return Ruling{}, fmt.Errorf("event kind %d is unknown", t.Kind)
}

var openRights = map[string]struct {
	right uint64
	call  string
}{
	"read":    {abi.FSReadFile, "openat"},
	"write":   {abi.FSWriteFile, "openat"},
	"execute": {abi.FSExecute, "execve"},
}

func open(p *ir.Program, f *ir.ArchFilter, t *ir.Test) (Ruling, error) {
	want, ok := openRights[t.For]
	if !ok {
		return Ruling{}, fmt.Errorf("open for %q, want read, write or execute", t.For)
	}
	if r, refused := refusedCall(f, want.call); refused {
		return r, nil
	}
	return Access(p, t.Target, want.right), nil
}

// Path decides whether Landlock grants all rights in want for a path. It compares text: path and the rules' paths must
// both be resolved, or both be as the policy wrote them.
func Path(l *ir.Landlock, path string, want uint64) Ruling {
	if want &= l.Handled.FS; want == 0 {
		return Ruling{Allowed: true, Reason: "not restricted"}
	}
	var got uint64
	decides, closest := -1, -1
	for i := range l.Paths {
		r := &l.Paths[i]
		if !covers(r, path) {
			continue
		}
		got |= r.Access
		if closest < 0 || len(r.Path) > len(l.Paths[closest].Path) {
			closest = i
		}
		if r.Access&want != 0 && (decides < 0 || len(r.Path) > len(l.Paths[decides].Path)) {
			decides = i
		}
	}
	if want&^got == 0 {
		r := &l.Paths[decides]
		return Ruling{true, "granted", r.Describe(l), r.Origin}
	}
	reason := "no rule grants " + strings.Join(abi.FSRightNames(want&^got), ",") + " here"
	if closest < 0 {
		return Ruling{Reason: reason}
	}
	r := &l.Paths[closest]
	return Ruling{false, reason + "; closest is " + r.Describe(l), r.Describe(l), r.Origin}
}

// covers tells whether a rule speaks of a path.
func covers(r *ir.PathRule, path string) bool {
	if r.Kind == ir.PathNumbered {
		digits, ok := strings.CutPrefix(path, r.Path)
		return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
	}
	return path == r.Path || r.Path == "/" || strings.HasPrefix(path, r.Path+"/")
}

// Arguments of socket (linux/socket.h, linux/net.h).
const (
	afInet, afInet6       = 2, 10
	sockStream, sockDgram = 1, 2
)

// socketEvent decides about an address: whether a socket can be made, whether the calls on it can be made, and what
// Landlock says of the port.
func socketEvent(p *ir.Program, f *ir.ArchFilter, target string, right uint64, calls ...string) (Ruling, error) {
	proto, host, port, err := splitAddress(target)
	if err != nil {
		return Ruling{}, err
	}
	family, kind := uint64(afInet), uint64(sockStream)
	if strings.Contains(host, ":") {
		family = afInet6
	}
	if proto == "udp" {
		kind = sockDgram
	}
	made, err := call(f, &ir.Test{Target: "socket", Args: []uint64{family, kind, 0}})
	if err != nil || !made.Allowed {
		return made, err
	}
	for _, name := range calls {
		if r, refused := refusedCall(f, name); refused {
			return r, nil
		}
	}
	protocol := ir.TCP
	if proto == "udp" {
		protocol = ir.UDP
	}
	if right == abi.NetBindTCP {
		return Bind(&p.Net, &p.Landlock, protocol, port), nil
	}
	return connect(p, protocol, host, port), nil
}

const portDNS = 53

// connect decides about an address, or about a name as far as rules name it or fix its addresses.
func connect(p *ir.Program, protocol ir.Protocols, host string, port uint16) Ruling {
	n := &p.Net
	if !n.DecidesDestinations() {
		return ByLandlock(&p.Landlock, protocol, port)
	}
	w := NewNetwork(n, n.Fixed, func(string) (uint16, bool) { return 0, false })
	if w.passesBy(protocol, port) {
		r := passesProxyBy(port)
		r.Origin = p.HTTP.Origin
		return r
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		r := w.Ask(protocol, netip.AddrPortFrom(addr, port))
		if n.Resolver && port == portDNS && !r.Allowed {
			r.Reason += "; the sandbox's own resolver answers in its place"
		}
		return r
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	r := w.AskName(protocol, name, port)
	if r.Allowed && n.Destinations == ir.DestinationsDenied {
		r.Reason += ", unless the name leads to an address that one denies"
	}
	for _, addr := range n.Fixed(name) {
		if r.Allowed {
			break
		}
		r = w.Ask(protocol, netip.AddrPortFrom(addr, port))
	}
	return r
}

// ByLandlock decides about a destination where nobody but Landlock does: by its port. What a socket can be made for and
// Landlock does not know may go everywhere.
func ByLandlock(l *ir.Landlock, protocol ir.Protocols, port uint16) Ruling {
	switch protocol {
	case ir.TCP:
		return Port(l, port, abi.NetConnectTCP)
	case ir.UDP:
		return Port(l, port, abi.NetConnectSendUDP)
	}
	return Ruling{Allowed: protocol == ir.ICMP, Reason: "not restricted"}
}

// Bind decides whether a port may be bound; 0 stands for an ephemeral one. Only TCP ports are restricted.
func Bind(n *ir.Net, l *ir.Landlock, protocol ir.Protocols, port uint16) Ruling {
	if protocol != ir.TCP {
		return Ruling{Allowed: true, Reason: "not restricted: every UDP port"}
	}
	for i := range n.DenyBind {
		if r := &n.DenyBind[i]; r.Param == "" && r.Lo <= port && port <= r.Hi {
			rule := "no bind tcp " + r.String()
			return Ruling{false, "denied by " + rule, rule, n.DenyBindOrigin}
		}
	}
	return Port(l, port, abi.NetBindTCP)
}

// Port decides whether a port may be bound or connected to.
func Port(l *ir.Landlock, port uint16, right uint64) Ruling {
	protocol := "TCP"
	if right&(abi.NetConnectSendUDP|abi.NetBindUDP) != 0 {
		protocol = "UDP"
	}
	if l.Handled.Net&right == 0 {
		return Ruling{Allowed: true, Reason: "not restricted: every " + protocol + " port"}
	}
	var closest *ir.PortRule
	for i := range l.Ports {
		r := &l.Ports[i]
		if r.Access&right == 0 || r.Param != "" {
			continue
		}
		if r.Port == port {
			return Ruling{true, "granted", r.Describe(right), r.Origin}
		}
		if closest == nil || closest.Port == 0 || r.Port != 0 && distance(r.Port, port) < distance(closest.Port, port) {
			closest = r
		}
	}
	reason := "no rule grants " + protocol + " port " + strconv.Itoa(int(port))
	if closest == nil {
		return Ruling{Reason: reason}
	}
	rule := closest.Describe(right)
	return Ruling{false, reason + "; closest is " + rule, rule, closest.Origin}
}

func distance(a, b uint16) int { return max(int(a), int(b)) - min(int(a), int(b)) }

// splitAddress takes "tcp 127.0.0.1:80".
func splitAddress(target string) (proto, host string, port uint16, err error) {
	proto, address, ok := strings.Cut(target, " ")
	if !ok || proto != "tcp" && proto != "udp" {
		return "", "", 0, fmt.Errorf("address %q does not begin with tcp or udp", target)
	}
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return "", "", 0, fmt.Errorf("address %q has no port", target)
	}
	host, text := strings.Trim(address[:colon], "[]"), address[colon+1:]
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", "", 0, fmt.Errorf("address %q: %q is not a port", target, text)
	}
	return proto, host, uint16(n), nil
}

// request decides about "GET example.com/path".
func request(h *ir.HTTP, target string) (Ruling, error) {
	if !h.On() {
		return Ruling{}, errors.New("the policy has no rules about requests")
	}
	method, rest, ok := strings.Cut(target, " ")
	rest = strings.TrimLeft(rest, " ")
	if !ok || method == "" {
		return Ruling{}, fmt.Errorf("request %q is not a method and a host with a path", target)
	}
	host, path := rest, "/"
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		host, path = rest[:slash], rest[slash:]
	}
	host, err := CanonicalHost(host)
	if err != nil {
		return Ruling{}, fmt.Errorf("request %q: %w", target, err)
	}
	path, _, _ = strings.Cut(path, "?")
	parsed, err := ParsePath(path)
	if err != nil {
		return Ruling{Reason: err.Error(), Origin: h.Origin}, nil // as the proxy answers
	}
	d := NewHTTP(h).Decide(strings.ToUpper(method), host, &parsed)
	r := Ruling{Allowed: d.Allowed, Reason: d.Reason, Origin: h.Origin}
	if rule := cmp.Or(d.Rule, d.Closest); rule != nil {
		r.Rule, r.Origin = rule.Describe(), rule.Origin
	}
	return r, nil
}

// call decides about a system call with arguments; those not given are 0.
func call(f *ir.ArchFilter, t *ir.Test) (Ruling, error) {
	nr, ok := abi.SyscallNumber(f.Arch, t.Target)
	if !ok {
		return Ruling{}, fmt.Errorf("%w: %s on %s", ErrNoCall, t.Target, f.Arch)
	}
	var args [6]uint64
	copy(args[:], t.Args)
	d := Syscall(f.Table, nr, args)
	r := Ruling{Allowed: passes(d.Action), Reason: d.Reason, Origin: d.Origin, Rule: d.Action.String()}
	if d.Action == ir.Notify {
		r.Reason = "decided by the supervisor: " + d.Reason
	}
	return r, nil
}

func passes(a ir.Action) bool { return a == ir.Allow || a == ir.Notify }

// refusedCall tells whether a call fails whatever its arguments are.
func refusedCall(f *ir.ArchFilter, name string) (Ruling, bool) {
	nr, ok := abi.SyscallNumber(f.Arch, name)
	if !ok {
		return Ruling{}, false
	}
	d := Syscall(f.Table, nr, [6]uint64{})
	e := &f.Table[d.Entry]
	if passes(e.Action) {
		return Ruling{}, false
	}
	for _, c := range e.Clauses {
		if passes(c.Action) {
			return Ruling{}, false
		}
	}
	return Ruling{Reason: name + " is refused: " + e.Reason, Rule: e.Action.String(), Origin: e.Origin}, true
}
