package load

import (
	"fmt"
	"regexp"

	"cuelang.org/go/cue"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// policy decodes a whole policy; user is v before it met the schema.
func (d *decoder) policy(v, user cue.Value) *policy.Policy {
	n := node{d: d, v: v, def: d.lang.defaults, user: user}
	return &policy.Policy{
		Name:        text(n.at("name"), policy.ParseName),
		Description: word(n.at("description")),
		Target:      structOf(n.at("target"), target),
		Protections: structOf(n.at("protections"), protections),
		Params:      entries(n.at("params"), checkParamName, param),
		Program:     structOf(n.at("program"), program),
		Filesystem:  structOf(n.at("filesystem"), filesystem),
		Network:     structOf(n.at("network"), network),
		HTTP:        structOf(n.at("http"), http),
		Syscalls:    structOf(n.at("syscalls"), syscalls),
		Limits:      structOf(n.at("limits"), limits),
		Determinism: structOf(n.at("determinism"), determinism),
		Rules:       list(n.at("rules"), elements("Rule", dynamicRule)),
		Tests:       list(n.at("tests"), elements("Test", test)),
	}
}

// elements reads list elements that are structs of a definition.
func elements[T any](definition string, decode func(node) T) func(node) policy.Val[T] {
	return func(n node) policy.Val[T] { return section(n.withDefaults(definition), decode) }
}

func target(n node) policy.Target {
	t := policy.Target{
		Arch:     list(n.at("arch"), word),
		Landlock: number[int](n.at("landlock")),
		Backend:  word(n.at("backend")),
	}
	refuseDuplicates(n.d, t.Arch)
	return t
}

// refuseDuplicates refuses elements that are listed twice, where a list is a set of names.
func refuseDuplicates(d *decoder, l policy.List[string]) {
	seen := map[string]policy.Origin{}
	for _, it := range l.Items {
		if before, ok := seen[it.V]; ok && it.V != "" {
			it.Origin.Also = []policy.Place{before.Place}
			d.fail(it.Origin, &policy.GrammarError{Rule: "duplicate", Msg: fmt.Sprintf("%q is listed twice", it.V)})
		}
		seen[it.V] = it.Origin
	}
}

func protections(n node) policy.Protections {
	return policy.Protections{
		FSRefer:           word(n.at("fs_refer")),
		FSTruncate:        word(n.at("fs_truncate")),
		FSIoctlDev:        word(n.at("fs_ioctl_dev")),
		NetTCP:            word(n.at("net_tcp")),
		SignalScope:       word(n.at("signal_scope")),
		AbstractUnixScope: word(n.at("abstract_unix_scope")),
		UnixPath:          word(n.at("unix_path")),
		NetUDP:            word(n.at("net_udp")),
	}
}

func checkParamName(name string) error {
	for _, builtin := range ir.Builtins {
		if name == builtin {
			return &policy.GrammarError{Rule: "param-name", Msg: fmt.Sprintf("${%s} is built in and cannot be declared", name)}
		}
	}
	return nil
}

func param(n node, name string) policy.Param {
	return structOf(n, func(n node) policy.Param { return paramFields(n, name) })
}

func paramFields(n node, name string) policy.Param {
	return policy.Param{
		Name:        name,
		Type:        word(n.at("type")),
		Default:     template(n.at("default")),
		Pattern:     text(n.at("pattern"), parsePattern),
		Under:       list(n.at("under"), path),
		Description: word(n.at("description")),
	}
}

// maxPattern is the longest pattern that package ir accepts.
const maxPattern = 4096

func parsePattern(s string) (string, error) {
	if len(s) > maxPattern {
		return "", &policy.GrammarError{Rule: "pattern", Msg: fmt.Sprintf("pattern has %d bytes, at most %d are allowed", len(s), maxPattern)}
	}
	if _, err := regexp.Compile(s); err != nil {
		return "", &policy.GrammarError{Rule: "pattern", Msg: err.Error(), Hint: "see https://github.com/google/re2/wiki/Syntax"}
	}
	return s, nil
}

func program(n node) policy.Program {
	p := policy.Program{
		Exec:           path(n.at("exec")),
		Args:           list(n.at("args"), template),
		Env:            environment(n.at("env")),
		PassEnv:        list(n.at("pass_env"), word),
		CleanEnv:       boolean(n.at("clean_env")),
		Cwd:            path(n.at("cwd")),
		UID:            number[uint32](n.at("uid")),
		GID:            number[uint32](n.at("gid")),
		Capabilities:   list(n.at("capabilities"), capability),
		NoCoredump:     boolean(n.at("no_coredump")),
		NoHugePages:    boolean(n.at("no_huge_pages")),
		NoSupervisor:   boolean(n.at("no_supervisor")),
		StrictLifetime: switched(n.at("strict_lifetime")),
	}
	refuseDuplicates(n.d, p.Capabilities)
	return p
}

// environment reads program.env. A value is a leaf, unlike those of other maps, so its origin is the literal's.
func environment(n node) policy.List[policy.EnvVar] {
	return entries(n, anyName, func(n node, name string) policy.EnvVar {
		return policy.EnvVar{Name: name, Value: template(n).V}
	})
}

func capability(n node) policy.Val[string] {
	return text(n, func(s string) (string, error) {
		number, ok := abi.CapabilityByName(s)
		if !ok {
			return "", &policy.GrammarError{Rule: "capability", Msg: fmt.Sprintf("%q is not a capability", s), Hint: "see capabilities(7)"}
		}
		name, _ := abi.CapabilityName(number)
		return name, nil
	})
}

func limits(n node) policy.Limits {
	return policy.Limits{
		Memory:       positive(n.at("memory")),
		Processes:    number[uint32](n.at("processes")),
		OpenFiles:    number[uint32](n.at("open_files")),
		CPU:          number[int](n.at("cpu")),
		Disk:         positive(n.at("disk")),
		Time:         text(n.at("time"), policy.ParseDuration),
		CPUCores:     list(n.at("cpu_cores"), number[uint16]),
		NumCPUs:      number[uint32](n.at("num_cpus")),
		MachineFiles: word(n.at("machine_files")),
		GPUDevices:   gpuDevices(n.at("gpu_devices")),
		Backend:      word(n.at("backend")),
	}
}

// positive reads bytes that bound something; zero would read as "nothing at all" or as "no limit".
func positive(n node) policy.Val[uint64] {
	v := size(n)
	if v.Set && v.V == 0 && n.kind() != cue.BottomKind && !n.d.failedAt(n.path) {
		n.d.fail(v.Origin, &policy.GrammarError{Rule: "range", Msg: "must be above 0", Hint: "leave the field out for no limit"})
	}
	return v
}

// failedAt tells whether a mistake at path was already recorded, or CUE found one.
func (d *decoder) failedAt(path string) bool {
	if d.partial {
		return true
	}
	for _, x := range d.diags {
		if x.Path == path {
			return true
		}
	}
	return false
}

func gpuDevices(n node) policy.GPUDevices {
	switch n.kind() {
	case cue.StringKind:
		return policy.GPUDevices{Mode: word(n), Indices: policy.List[uint16]{Origin: absent(n.path)}}
	case cue.ListKind:
		return policy.GPUDevices{Mode: fixed(n, "indices"), Indices: list(n, number[uint16])}
	}
	return policy.GPUDevices{
		Mode:    policy.Val[string]{V: "none", Origin: absent(n.path)},
		Indices: policy.List[uint16]{Origin: absent(n.path)},
	}
}

func absent(path string) policy.Origin { return policy.Origin{Path: path, Kind: ir.OriginDefault} }

func determinism(n node) policy.Determinism {
	return policy.Determinism{
		RandomSeed:        number[uint64](n.at("random_seed")),
		TimeStart:         text(n.at("time_start"), policy.ParseTime),
		DeterministicDirs: boolean(n.at("deterministic_dirs")),
		NoRandomizeMemory: boolean(n.at("no_randomize_memory")),
	}
}
