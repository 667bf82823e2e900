// Package lookup resolves names once, as this host does.
//
// In: names, one a line. Out: a line of hosts(5) for each address, and for each name that has none a line with the reason.
// It asks Go's own resolver, which reads /etc/hosts, /etc/nsswitch.conf and /etc/resolv.conf and talks DNS; modules of the
// C library such as mDNS are not asked.
package lookup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// Files are what a lookup reads.
var Files = []string{"/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"}

// parallel is how many names are looked up at the same time.
const parallel = 16

// Resolve returns the addresses of a name. *net.Resolver's LookupNetIP is one.
type Resolve func(ctx context.Context, network, name string) ([]netip.Addr, error)

// Host is the host's resolver.
func Host(ctx context.Context, network, name string) ([]netip.Addr, error) {
	return (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, network, name)
}

// Run is the job. It returns the exit code, 1 if a name has no addresses.
func Run(resolve Resolve, in io.Reader, out, complaints io.Writer) int {
	ctx, cancel := context.WithTimeout(context.Background(), protocol.LookupTime)
	defer cancel()
	names, err := read(in)
	if err != nil {
		fmt.Fprintln(complaints, err)
		return 1
	}
	results := make([]result, len(names))
	var done sync.WaitGroup
	turn := make(chan struct{}, parallel)
	for i, name := range names {
		turn <- struct{}{}
		done.Go(func() {
			results[i] = lookup(ctx, resolve, name)
			<-turn
		})
	}
	done.Wait()
	code := 0
	w := bufio.NewWriter(out)
	for i, r := range results {
		if r.reason != "" {
			fmt.Fprintf(complaints, "%s: %s\n", names[i], r.reason)
			code = 1
		}
		for _, a := range r.addresses {
			fmt.Fprintf(w, "%s %s\n", a, names[i])
		}
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(complaints, err)
		return 1
	}
	return code
}

func read(in io.Reader) (names []string, err error) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if !protocol.IsName(lines.Text()) {
			return nil, fmt.Errorf("%.80q is not a host name in lower case", lines.Text())
		}
		names = append(names, lines.Text())
	}
	return names, lines.Err()
}

type result struct {
	addresses []netip.Addr
	reason    string
}

func lookup(ctx context.Context, resolve Resolve, name string) (r result) {
	// A name with a dot is meant as it stands: a search domain would make another of it.
	absolute := name
	if strings.Contains(name, ".") {
		absolute += "."
	}
	list, err := resolve(ctx, "ip", absolute)
	if err != nil {
		return result{reason: reason(err)}
	}
	seen := map[netip.Addr]bool{}
	for _, a := range list {
		if a = a.Unmap(); a.Zone() != "" || seen[a] {
			continue
		}
		if seen[a] = true; len(r.addresses) < protocol.MaxAddresses {
			r.addresses = append(r.addresses, a)
		}
	}
	if len(r.addresses) == 0 {
		r.reason = "no address"
	}
	return r
}

func reason(err error) string {
	var failure *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer in %v", protocol.LookupTime)
	case errors.As(err, &failure) && failure.IsTimeout:
		return "no answer from " + failure.Server
	case errors.As(err, &failure):
		return failure.Err
	}
	return err.Error()
}
