package main

import (
	"encoding/json"
	"fmt"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/kernel"
)

// runCheck prints the host's facilities and, given an artifact, what it would miss. It fails when the artifact could not
// run here.
func runCheck(s *streams, args []string) error {
	f := newFlags()
	asJSON := f.Bool("json", false, "")
	groups := f.String("cgroup", "", "")
	artifact, err := parse(s, f, args)
	if err != nil {
		return err
	}
	host := exec.Probe(*groups)
	var missing []string
	if artifact != "" {
		a, err := exec.Load(artifact)
		if err != nil {
			return err
		}
		missing = exec.Missing(a.Program, host)
	}
	if *asJSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(struct {
			kernel.Host
			Missing []string
		}{host, missing}); err != nil {
			return err
		}
	} else {
		printHost(s, host)
		for _, m := range missing {
			fmt.Fprintf(s.out, "missing              %s\n", m)
		}
		if artifact != "" && len(missing) == 0 {
			fmt.Fprintf(s.out, "%s can run here\n", artifact)
		}
	}
	if len(missing) > 0 {
		return exitCode(exec.CodeSetup)
	}
	return nil
}

func printHost(s *streams, h kernel.Host) {
	line := func(name, value string) { fmt.Fprintf(s.out, "%-20s %s\n", name, value) }
	offer := func(name string, ok bool, why string) {
		switch {
		case ok:
			line(name, "yes")
		case why != "":
			line(name, "no: "+why)
		default:
			line(name, "no")
		}
	}
	line("kernel", h.Kernel)
	if h.LandlockABI > 0 {
		line("landlock", fmt.Sprintf("ABI %d", h.LandlockABI))
	} else {
		line("landlock", "no: "+kernel.ErrNoLandlock.Error())
	}
	offer("seccomp filter", h.SeccompFilter, "")
	offer("seccomp notify", h.SeccompNotify, h.NotifyReason)
	offer("  wait killable", h.WaitKillable, "slower to interrupt: needs Linux 5.19")
	offer("  sync wake-up", h.SyncWakeUp, "notified calls are slower: needs Linux 6.7")
	offer("ptrace", h.Ptrace, h.PtraceReason)
	offer("namespaces", h.Namespaces, h.NamespacesReason)
	offer("  with a new /proc", h.FreshProc, h.FreshProcReason)
	offer("user namespaces", h.UserNamespaces, h.UserNSReason)
	offer("  with a new /proc", h.MappedProc, h.MappedProcReason)
	offer("cgroup memory", h.CgroupMemory, h.CgroupMemoryReason)
	offer("cgroup cpu", h.CgroupCPU, h.CgroupCPUReason)
}
