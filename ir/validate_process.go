package ir

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

// Highest numbers that the kernel can know.
const (
	maxCapability = 63   // capability sets are 64 bits wide (linux/capability.h)
	maxCPU        = 8191 // CONFIG_NR_CPUS is at most 8192
	maxGPU        = 1023
)

func (p *Program) checkProcess() error {
	s := &p.Process
	if _, known := startNames[s.Start]; !known {
		return fmt.Errorf("start %d is unknown", s.Start)
	}
	for _, t := range []Template{s.Exec, s.Cwd} {
		if t == "" {
			continue
		}
		if err := p.checkPath(t); err != nil {
			return err
		}
	}
	if len(s.Args) > maxArgs {
		return fmt.Errorf("args: %w", tooMany(len(s.Args), maxArgs))
	}
	for i, arg := range s.Args {
		if err := p.checkArgument(arg); err != nil {
			return fmt.Errorf("args[%d]: %w", i, err)
		}
	}
	if err := p.checkEnv(s.Env); err != nil {
		return fmt.Errorf("env: %w", err)
	}
	if err := checkNames(s.PassEnv, "variable", checkEnvGlob); err != nil {
		return fmt.Errorf("pass_env: %w", err)
	}
	return checkAscending(s.Capabilities, "capability", maxCapability)
}

func (p *Program) checkEnv(env []EnvVar) error {
	if len(env) > maxArgs {
		return tooMany(len(env), maxArgs)
	}
	for i := range env {
		v := &env[i]
		if i > 0 && v.Name <= env[i-1].Name {
			return fmt.Errorf("variable %q after %q: not ascending", v.Name, env[i-1].Name)
		}
		err := checkEnvName(v.Name)
		if err == nil {
			err = p.checkArgument(v.Value)
		}
		if err == nil {
			err = p.checkOrigin(v.Origin)
		}
		if err != nil {
			return fmt.Errorf("variable %q: %w", v.Name, err)
		}
	}
	return nil
}

// checkEnvName: any name that a name=value string can carry.
func checkEnvName(name string) error {
	if name == "" || strings.ContainsAny(name, "=*") {
		return errors.New("not a variable name")
	}
	return checkLine(name)
}

// checkEnvGlob: a name, or a prefix that ends in "*"; "*" alone stands for every variable.
func checkEnvGlob(glob string) error {
	if glob == "*" {
		return nil
	}
	return checkEnvName(strings.TrimSuffix(glob, "*"))
}

// checkArgument holds for templates that become an argument or an environment value: any bytes but NUL.
func (p *Program) checkArgument(t Template) error {
	if len(t) > maxArgument {
		return fmt.Errorf("text of %d bytes, at most %d are allowed", len(t), maxArgument)
	}
	if strings.ContainsRune(t, 0) {
		return errors.New("NUL byte")
	}
	return p.checkTemplateNames(t)
}

// checkPath holds for templates that can only become absolute, lexically clean paths. What values make of them is
// checked again by [ExpandPath].
func (p *Program) checkPath(t Template) error {
	if len(t) > MaxPath {
		return fmt.Errorf("path of %d bytes, at most %d are allowed", len(t), MaxPath)
	}
	literal, first, _, err := cutName(t)
	if err != nil {
		return fmt.Errorf("path %q: %w", t, err)
	}
	if literal == "" && !p.isPathName(first) {
		return fmt.Errorf("path %q does not start with a slash or a parameter that is a path", t)
	}
	// Names hold neither slashes nor dots, so the template is clean exactly when its literal parts are.
	rooted := t
	if literal == "" {
		rooted = "/" + t
	}
	if !strings.HasPrefix(rooted, "/") || path.Clean(rooted) != rooted {
		return fmt.Errorf("path %q is not absolute and lexically clean", t)
	}
	if err := checkText(t); err != nil {
		return fmt.Errorf("path %q: %w", t, err)
	}
	return p.checkTemplateNames(t)
}

// isPathName tells whether name is bound to an absolute path.
func (p *Program) isPathName(name string) bool {
	if slices.Contains(Builtins, name) {
		return name != "uid"
	}
	i := p.paramIndex(name)
	return i >= 0 && p.Params[i].Type.isPath()
}

func (p *Program) checkTemplateNames(t Template) error {
	if !strings.Contains(t, "${") { // nearly always
		return nil
	}
	names, err := Names(t)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.Contains(Builtins, name) && p.paramIndex(name) < 0 {
			return fmt.Errorf("template %q uses %q, which is not declared", t, name)
		}
	}
	return nil
}

func (p *Program) paramIndex(name string) int {
	return slices.IndexFunc(p.Params, func(param Param) bool { return param.Name == name })
}

func (p *Program) checkLimits() error {
	l := &p.Limits
	if most := uint64(math.MaxInt64 / time.Millisecond); l.TimeMS > most {
		return fmt.Errorf("time of %d ms, at most %d are allowed", l.TimeMS, most)
	}
	if err := checkAscending(l.CPUCores, "CPU", maxCPU); err != nil {
		return err
	}
	if l.GPU.Mode > GPUIndices {
		return fmt.Errorf("GPU mode %d is unknown", l.GPU.Mode)
	}
	if listed := len(l.GPU.Devices) > 0; listed != (l.GPU.Mode == GPUIndices) {
		return fmt.Errorf("GPU mode %d with %d devices", l.GPU.Mode, len(l.GPU.Devices))
	}
	if err := checkAscending(l.GPU.Devices, "GPU", maxGPU); err != nil {
		return err
	}
	if l.CPUPercent > 99 {
		return fmt.Errorf("CPU share of %d percent, at most 99 is a limit", l.CPUPercent)
	}
	if l.Backend > BackendCgroup {
		return fmt.Errorf("backend %d is unknown", l.Backend)
	}
	if l.Backend == BackendCgroup && l.Memory == 0 && l.CPUPercent == 0 {
		return errors.New("a control group, and no limit that it keeps")
	}
	if l.CPUCount > maxCPU+1 {
		return fmt.Errorf("%d CPUs, at most %d are allowed", l.CPUCount, maxCPU+1)
	}
	if l.MachineFiles && l.Memory == 0 && l.CPUCount == 0 {
		return errors.New("files show a limited machine, and nothing limits it")
	}
	return p.checkRefs(map[string]OriginRef{
		"processes": l.ProcessesOrigin, "time": l.TimeOrigin, "memory": l.MemoryOrigin, "cpu": l.CPUOrigin,
	})
}

func (p *Program) checkDeterminism() error {
	d := &p.Determinism
	if !d.Random && d.Seed != 0 {
		return fmt.Errorf("a seed of %d without seeded randomness", d.Seed)
	}
	if !d.ShiftTime && d.TimeStart != 0 {
		return fmt.Errorf("a start of %d without a shifted clock", d.TimeStart)
	}
	if start := int64(d.TimeStart); start < minTime || start > maxTime {
		return fmt.Errorf("time %d s is outside of the years 1 to 9999", start)
	}
	return p.checkRefs(map[string]OriginRef{"random_seed": d.RandomOrigin, "time_start": d.TimeOrigin, "deterministic_dirs": d.DirsOrigin})
}

// The years that RFC 3339 can write, in seconds since 1970.
const (
	minTime = -62135596800
	maxTime = 253402300799
)

func (p *Program) checkRefs(refs map[string]OriginRef) error {
	for name, ref := range refs {
		if err := p.checkOrigin(ref); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// checkStart: a command that is started in place has no supervisor, so nothing may wait for one.
func (p *Program) checkStart() error {
	if p.Process.Start != StartInPlace {
		return nil
	}
	if l := &p.Limits; l.Processes > 0 || l.TimeMS > 0 || l.Memory > 0 || l.CPUPercent > 0 || l.CPUCount > 0 {
		return errors.New("limits of processes, time, memory and CPU need a supervisor, and the start is in place")
	}
	if d := &p.Determinism; d.Random || d.ShiftTime || d.SortedDirs {
		return errors.New("determinism needs a supervisor, and the start is in place")
	}
	if len(p.Rules) > 0 {
		return errors.New("rules need a supervisor, and the start is in place")
	}
	for i := range p.Seccomp.Filters {
		f := &p.Seccomp.Filters[i]
		if f.notifies() || returnsNotify(f.Program) || len(f.Observe) > 0 {
			return fmt.Errorf("filter for %s notifies a supervisor, and the start is in place", f.Arch)
		}
	}
	return nil
}
