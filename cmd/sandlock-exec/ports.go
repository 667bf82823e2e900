package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sandlock-go/sandlock/exec"
)

// runPorts prints the virtual ports of the sandboxes that run.
func runPorts(s *streams, args []string) error {
	f := newFlags()
	asJSON := f.Bool("json", false, "")
	extra, err := parse(s, f, args)
	if err != nil {
		return err
	}
	if extra != "" {
		return errors.New("ports takes no argument (try sandlock-exec --help)")
	}
	list, err := exec.ListPorts()
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(s.out)
		for _, r := range list {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	for _, r := range list {
		for _, p := range r.Ports {
			if _, err := fmt.Fprintf(s.out, "%d %q %s %s→%d\n", r.PID, r.Policy, p.Protocol, netip.AddrPortFrom(p.Address, p.Virtual), p.Real); err != nil {
				return err
			}
		}
	}
	return nil
}
