package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/compiler/lock"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir/query"
)

type lockCmd struct {
	source
	Check bool `help:"Write nothing; fail and show the difference if names have other addresses now than in the lock file."`
}

// lookup asks the system's resolver for the addresses of a name.
type lookup func(ctx context.Context, name string) ([]netip.Addr, error)

func systemLookup(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// lookupTime bounds the lookups of one policy.
const lookupTime = time.Minute

// Run writes or compares the lock file of a policy. It is the one command that uses the network.
func (c *lockCmd) Run(s *streams) error {
	o := c.options(s).Source
	p, diags := load.Load(o)
	if err := s.diagnostics(s.err, diags, false); err != nil {
		return err
	}
	if p == nil {
		return &codeError{code: codePolicy}
	}
	file, shown, err := load.LockFile(o)
	if err != nil {
		return failed("%v", err)
	}
	if p.Network.Resolve.V != "compile" {
		return failed(`the policy has names resolved when the sandbox starts: write network.resolve: "compile" to have %s read`, shown)
	}
	text, n, err := resolve(p, filepath.Base(c.Policy[0]), systemLookup)
	if err != nil {
		return err
	}
	if c.Check {
		return c.compare(s, o, text)
	}
	if err := s.write(file, text); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "wrote %s: %d addresses\n", file, n)
	return err
}

// compare shows how the lock file differs from what it would be if it were written now.
func (c *lockCmd) compare(s *streams, o load.Options, text []byte) error {
	shown, data, diags := load.ReadLock(o)
	if !diags.HasErrors() {
		var entries []lock.Entry
		if entries, diags = lock.Parse(shown, data); !diags.HasErrors() {
			// Comments, order and aliases are the writer's own business.
			old := lock.Format(filepath.Base(c.Policy[0]), entries)
			if len(data) == 0 {
				old = nil
			}
			difference := lineDiff(string(old), string(text), 0)
			if difference == "" {
				return nil
			}
			fmt.Fprint(s.err, difference)
			return failed("names have other addresses now than in %s", shown)
		}
	}
	if err := s.diagnostics(s.err, diags, false); err != nil {
		return err
	}
	return &codeError{code: codePolicy}
}

// resolve returns the lock file that a policy has now, and how many addresses are in it.
func resolve(p *policy.Policy, about string, look lookup) (text []byte, n int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	var entries []lock.Entry
	for _, w := range lock.Names(p) {
		addrs, err := look(ctx, w.Name)
		if err != nil {
			return nil, 0, failed("%s: %s: %v", w.Origin.Place, w.Name, err)
		}
		var list []netip.Addr
		for _, a := range addrs {
			if a = a.Unmap().WithZone(""); !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
		if len(list) == 0 {
			return nil, 0, failed("%s: %s has no address", w.Origin.Place, w.Name)
		}
		for _, a := range list {
			if p.Network.Private.V && query.IsPrivate(a) {
				return nil, 0, failed("%s: %s leads to %s, a private address, which network.private refuses", w.Origin.Place, w.Name, a)
			}
			entries = append(entries, lock.Entry{Name: w.Name, Address: a})
		}
	}
	return lock.Format(about, entries), len(entries), nil
}
