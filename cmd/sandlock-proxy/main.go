// The runtime would keep the control group's cpu.max open and re-read it (Go 1.25, "Container-aware GOMAXPROCS").
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command sandlock-proxy is the helper program of sandlock-exec, found beside it: what parses the network's bytes is a
// process of its own, confined before it reads the first of them. It is not started by hand.
//
//	sandlock-proxy resolve     names on standard input, hosts(5) on standard output (package lookup)
//	sandlock-proxy resolver    a DNS resolver for one sandbox, told what to do on descriptor 3 (package resolver)
//	sandlock-proxy proxy       an HTTP proxy for one sandbox, told what to do on descriptor 3 (package intercept)
//
// To add a job: a package in proxy/ with a function that runs it, a name in proxy/protocol, a line in jobs.
package main

import (
	"fmt"
	"os"

	"github.com/sandlock-go/sandlock/proxy/confine"
	"github.com/sandlock-go/sandlock/proxy/intercept"
	"github.com/sandlock-go/sandlock/proxy/lookup"
	"github.com/sandlock-go/sandlock/proxy/protocol"
	"github.com/sandlock-go/sandlock/proxy/resolver"
)

// job is one thing that the program does.
type job struct {
	descriptors int // that the executor gives it
	run         func() int
}

var jobs = map[string]job{
	protocol.JobLookup:   {3, runLookup},
	protocol.JobResolver: {resolver.Descriptor + 1, runResolver},
	protocol.JobProxy:    {intercept.Descriptor + 1, runProxy},
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 1 {
		if j, ok := jobs[args[0]]; ok {
			// It was started by a descriptor, whose number ps(1) would show.
			_ = os.WriteFile("/proc/self/comm", []byte("sandlock-proxy"), 0)
			if err := confine.CloseInherited(j.descriptors); err != nil {
				return fail(err)
			}
			return j.run()
		}
	}
	fmt.Fprintln(os.Stderr, "sandlock-proxy is started by sandlock-exec")
	return 2
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "sandlock-proxy: %v\n", err)
	return 1
}

func runLookup() int {
	if err := confine.Enter(confine.Needs{Read: lookup.Files, Ports: []uint16{53}, Files: 64}); err != nil {
		return fail(err)
	}
	return lookup.Run(lookup.Host, os.Stdin, os.Stdout, os.Stderr)
}

func runResolver() int {
	if err := resolver.Run(resolver.Descriptor); err != nil {
		return fail(err)
	}
	return 0
}

func runProxy() int {
	if err := intercept.Run(intercept.Descriptor); err != nil {
		return fail(err)
	}
	return 0
}
