// Package intercept is the HTTP proxy of one sandbox.
//
// In: messages of the executor (proxy/protocol), which hand over each connection that the sandbox makes to an intercepted
// port, with the place where it leads. Out: the requests that the policy allows, to that place and no other, and a record
// of each. It decrypts TLS where the policy has an authority, and adds the policy's credentials.
//
// It trusts nobody: not the sandbox, whose bytes it reads, not the servers, and not the names that either of them says. It is
// confined before it reads the first of those bytes. It makes no socket: each one it has is given by the executor, so nobody
// else can reach it, and it can reach nobody else. It decides nothing: ir/query does.
//
// Read next: configuration.go (the begin), control.go (the executor), session.go (a connection), check.go (a request),
// forward.go and upstream.go (what becomes of it), answer.go (what is said instead).
package intercept

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httputil"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/ca"
	"github.com/sandlock-go/sandlock/proxy/confine"
	"github.com/sandlock-go/sandlock/proxy/credential"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// Descriptor is where the executor's messages are.
const Descriptor = 3

// Run is the job. It ends when the executor does, and the process with it.
func Run(fd int) error {
	// Before it has the secrets.
	if err := kernel.HideSelf(); err != nil {
		return err
	}
	tune()
	_, err := run(fd, confine.Enter)
	return err
}

func run(fd int, enter func(confine.Needs) error) (*proxy, error) {
	control, err := newControl(fd)
	if err != nil {
		return nil, err
	}
	p, err := newProxy(control)
	if err != nil {
		return nil, err
	}
	if err := enter(confine.Needs{Given: true, Memory: maxMemory, Files: descriptors(p.limits.Connections)}); err != nil {
		return nil, err
	}
	var ready protocol.ProxyReady
	if p.authority != nil {
		ready.CA = p.authority.PEM()
	}
	go control.write()
	p.begin()
	control.send(ready)
	err = control.serve(p.connection)
	p.end()
	return p, err
}

// endTime bounds how long what is left is waited for, and then told, once the executor has hung up.
const endTime = 400 * time.Millisecond

// end ends all sessions and tells what is left to tell of them. The sandbox has ended by now, as a rule.
func (p *proxy) end() {
	p.mu.Lock()
	open := slices.Collect(maps.Keys(p.sessions))
	p.mu.Unlock()
	for _, s := range open {
		s.conn.Close()
	}
	told := make(chan struct{})
	go func() {
		p.untold.Wait()
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(endTime):
	}
	p.control.finish(endTime)
}

// tune is for how the process runs. The client and the server need processors too: with as many of our own, most of the time
// goes into waking threads on the other ones (with two processors, half gives half as many requests again). What lives is
// small, so the collector would run at every few megabytes; this costs about 10 MiB.
func tune() {
	runtime.GOMAXPROCS(max(1, runtime.NumCPU()/2))
	debug.SetGCPercent(400)
}

const (
	// maxMemory bounds what the process may write to, in bytes: it ends where a sandbox has it keep more, and the sandbox's
	// connections with it. The sandbox's own limit does not count what is here.
	maxMemory = 1 << 30
	// requestsPerConnection bounds the requests that are answered at a time, by the connections that there may be.
	requestsPerConnection = 4
)

// descriptors is how many the process may have: a connection may need six (both ends, and a pipe in each direction where
// bytes are passed on as they are), and connections to servers are kept.
func descriptors(connections uint32) uint64 {
	want := 6*uint64(connections) + 2*maxIdle + 64
	var has unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &has) == nil {
		want = min(want, has.Max)
	}
	return want
}

// proxy is what all connections have in common. Only sessions changes once it has begun.
type proxy struct {
	control *control
	log     bool // requests that passed are told of, too

	rules  *query.HTTP
	pinned []string        // names that lead to certain addresses, those with a wildcard included
	named  map[string]bool // names in rules
	limits ir.HTTPLimits
	redact bool // queries in records

	authority *ca.Authority         // nil: TLS is not decrypted
	tls       *tls.Config           // towards the sandbox
	roots     func() *x509.CertPool // nil like authority
	store     *credential.Store
	secrets   map[*ir.HTTPAuth]secret

	server    *http.Server
	ready     *feed
	forward   *httputil.ReverseProxy
	transport *http.Transport

	requests atomic.Int64   // that are being answered
	warn     sync.Once      // that a credential is sent unencrypted
	untold   sync.WaitGroup // sessions that the executor may still hear of
	mu       sync.Mutex
	sessions map[*session]struct{}
}

// newProxy makes a proxy of what the executor says at first.
func newProxy(control *control) (*proxy, error) {
	conf, err := control.configuration()
	if err != nil {
		return nil, err
	}
	defer conf.clear()
	h := &conf.program.HTTP
	if !h.On() {
		return nil, errors.New("the policy has no HTTP rules")
	}
	p := &proxy{
		control: control, log: conf.begin.Log,
		rules: query.NewHTTP(h), pinned: conf.names, named: map[string]bool{}, limits: h.Limits, redact: h.RedactQuery,
		sessions: map[*session]struct{}{},
	}
	names, _ := h.Hosts()
	for _, name := range names {
		p.named[name] = true
	}
	if p.store, p.secrets, err = conf.keep(h); err != nil {
		return nil, err
	}
	if p.authority, err = conf.authority(h); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if p.authority != nil {
		if p.roots, err = conf.roots(); err != nil {
			return nil, err
		}
	}
	p.tls = p.serverTLS()
	p.transport = p.newTransport()
	p.forward = p.newForwarder()
	p.server, p.ready = p.newServer()
	return p, nil
}

// begin starts what runs all the time.
func (p *proxy) begin() {
	go func() { _ = p.server.Serve(p.ready) }()
	go p.endIdle()
	if p.roots != nil {
		go p.roots()
	}
}

func (p *proxy) headTime() time.Duration { return milliseconds(p.limits.HeaderMS) }

func (p *proxy) idleTime() time.Duration { return milliseconds(p.limits.IdleMS) }

func milliseconds(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
