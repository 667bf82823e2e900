package check

import (
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func checkProgram(c *checker) {
	p := &c.Program
	if len(p.Args.Items) > 0 && !p.Exec.Set {
		c.errorf(p.Args.Origin, "requires", "args are for exec, and there is none")
	}
	if len(p.PassEnv.Items) > 0 && !p.CleanEnv.V {
		c.add(diag.At(p.PassEnv.Origin, "no-effect", "everything is inherited anyway").AsWarning().WithHint("write program.clean_env: true"))
	}
	checkCapabilities(c)
}

// checkCapabilities warns of those for which the kernel does not ask Landlock: with them the /proc files of any process of the
// user tell of its memory and environment, the executor's included (perfmon_capable in fs/proc, Linux 6.13).
func checkCapabilities(c *checker) {
	if c.Filesystem.Proc.V != "host" {
		return
	}
	for _, it := range c.Program.Capabilities.Items {
		if n, ok := abi.CapabilityByName(it.V); ok && (n == unixPerfmon || n == unixSysAdmin) {
			c.add(diag.At(it.Origin, "exposes", "with it the command may read the environment and the memory map of processes outside of the sandbox").AsWarning().
				WithHint(`write filesystem.proc: "private"`))
		}
	}
}

// Numbers of capabilities (linux/capability.h).
const (
	unixSysAdmin = 21
	unixPerfmon  = 38
)

// checkSupervisor refuses what only a supervisor can enforce in a policy that has none: to drop it would weaken the
// policy behind its author's back.
func checkSupervisor(c *checker) {
	if !c.Program.NoSupervisor.V {
		return
	}
	needs := []struct {
		set    bool
		origin policy.Origin
		why    string
	}{
		{c.Limits.Processes.Set, c.Limits.Processes.Origin, "it counts processes"},
		{c.Limits.Memory.Set, c.Limits.Memory.Origin, "it grants memory"},
		{c.Limits.NumCPUs.Set, c.Limits.NumCPUs.Origin, "it answers for the machine"},
		{c.Limits.Time.Set, c.Limits.Time.Origin, "it ends the sandbox"},
		{c.Determinism.DeterministicDirs.V, c.Determinism.DeterministicDirs.Origin, "it lists directories"},
		{c.Limits.CPU.Set && c.Limits.CPU.V < 100, c.Limits.CPU.Origin, "it measures and stops the sandbox"},
		{c.Determinism.RandomSeed.Set, c.Determinism.RandomSeed.Origin, "it answers from the seed"},
		{c.Determinism.TimeStart.Set, c.Determinism.TimeStart.Origin, "it shows the shifted time"},
		{len(c.Rules.Items) > 0, c.Rules.Origin, "it looks at calls before they are carried out"},
		{c.HTTP.On(), c.HTTP.Origin(), "it leads connections to the proxy"},
		{lower.SupervisesDestinations(c.Policy) && !c.HTTP.On(), c.Network.Allow.Origin, "it connects and sends to what rules with hosts or datagrams name"},
		{len(c.Network.Deny.Items) > 0, c.Network.Deny.Origin, "it connects and sends"},
		{len(c.Network.DenyBind.Items) > 0, c.Network.DenyBind.Origin, "it binds"},
		{c.Network.PortRemap.V, c.Network.PortRemap.Origin, "it binds and translates"},
		{len(c.Network.Hosts.Items) > 0, c.Network.Hosts.Origin, "it shows the names in /etc/hosts"},
		{c.Network.Unix.Mode.Set && c.Network.Unix.Mode.V != "none", c.Network.Unix.Mode.Origin, "it connects to sockets"},
		{listedPorts(c.Network.AllowBind), c.Network.AllowBind.Origin, "it watches listen, which binds a port by itself"},
	}
	for _, n := range needs {
		if n.set {
			d := diag.At(n.origin, "no-supervisor", "needs a supervisor (%s), and program.no_supervisor is set", n.why)
			c.add(d.WithNote(c.Program.NoSupervisor.Origin.Place, "set at"))
		}
	}
}

// listedPorts tells whether some ports may be bound, but not all.
func listedPorts(bind policy.List[policy.PortSet]) bool {
	for _, it := range bind.Items {
		if it.V.All {
			return false
		}
	}
	return len(bind.Items) > 0
}

func checkLimits(c *checker) {
	if l := &c.Limits; l.Backend.V == "cgroup" && !l.Memory.Set && (!l.CPU.Set || l.CPU.V == 100) {
		c.warnf(l.Backend.Origin, "no-effect", "there is neither a limit of memory nor one of CPU time that it could enforce")
	}
	duplicate := func(what string) func(again, first policy.Val[uint16]) {
		return func(again, first policy.Val[uint16]) {
			c.add(diag.At(again.Origin, "duplicate", "%s %d is listed twice", what, again.V).WithNote(first.Origin.Place, "first at"))
		}
	}
	if l := &c.Limits; l.MachineFiles.Set && !l.Memory.Set && !l.NumCPUs.Set {
		c.add(diag.At(l.MachineFiles.Origin, "no-effect", "the files tell of the host's machine anyway").AsWarning().WithHint("write limits.memory or limits.num_cpus"))
	}
	same := func(n uint16) uint16 { return n }
	repeated(c.Limits.CPUCores, same, duplicate("core"))
	repeated(c.Limits.GPUDevices.Indices, same, duplicate("device"))
}
