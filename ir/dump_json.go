package ir

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/bpf"
)

// DumpJSON writes the program for other programs to read: everything that the text holds, numbers by their names,
// places included. The names of its fields are an interface: they are added to, never changed.
func (p *Program) DumpJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(p.view()); err != nil {
		return fmt.Errorf("write program as JSON: %w", err)
	}
	return nil
}

type programView struct {
	Format      int               `json:"format"`
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Target      targetView        `json:"target"`
	Requires    []requirementView `json:"requires"`
	Process     processView       `json:"process"`
	Landlock    landlockView      `json:"landlock"`
	Limits      limitsView        `json:"limits"`
	Params      []paramView       `json:"params"`
	Seccomp     seccompView       `json:"seccomp"`
	Mechanisms  []mechanismView   `json:"mechanisms"`
	Tests       []testView        `json:"tests"`
	Determinism determinismView   `json:"determinism"`
	Rules       []ruleView        `json:"rules"`
	Network     netView           `json:"network"`
	HTTP        *httpView         `json:"http,omitempty"`
	View        *namespacesView   `json:"view,omitempty"`
	Branch      *branchView       `json:"branch,omitempty"`
}

type targetView struct {
	Arches   []string `json:"arches"`
	Landlock int      `json:"landlock"`
	Backend  string   `json:"backend"`
}

type requirementView struct {
	Feature string   `json:"feature"`
	Min     uint32   `json:"min,omitempty"`
	Fields  []string `json:"fields"`
}

type processView struct {
	Supervised        bool      `json:"supervised"`
	Exec              string    `json:"exec,omitempty"`
	Args              []string  `json:"args,omitempty"`
	Cwd               string    `json:"cwd,omitempty"`
	CleanEnv          bool      `json:"clean_env"`
	PassEnv           []string  `json:"pass_env,omitempty"`
	Env               []envView `json:"env"`
	Capabilities      []string  `json:"capabilities"`
	NoCoredump        bool      `json:"no_coredump"`
	NoHugePages       bool      `json:"no_huge_pages"`
	NoRandomizeMemory bool      `json:"no_randomize_memory"`
}

type envView struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin,omitempty"`
}

type rightsView struct {
	FS     []string `json:"fs"`
	Net    []string `json:"net"`
	Scoped []string `json:"scoped"`
}

type landlockView struct {
	Handled rightsView `json:"handled"`
	Degrade rightsView `json:"degrade"`
	Paths   []pathView `json:"paths"`
	Ports   []portView `json:"ports"`
}

type pathView struct {
	Path   string   `json:"path"`
	Class  Class    `json:"class"`
	Access []string `json:"access"`
	Kind   string   `json:"kind"`
	Origin string   `json:"origin,omitempty"`
}

type portView struct {
	Access []string `json:"access"`
	Port   *uint16  `json:"port,omitempty"`
	Param  string   `json:"param,omitempty"`
	Origin string   `json:"origin,omitempty"`
}

type limitsView struct {
	Processes  uint32   `json:"processes,omitempty"`
	OpenFiles  uint32   `json:"open_files,omitempty"`
	TimeMS     uint64   `json:"time_ms,omitempty"`
	CPUCores   []uint16 `json:"cpu_cores,omitempty"`
	GPUAll     bool     `json:"gpu_all,omitempty"`
	GPUDevices []uint16 `json:"gpu_devices,omitempty"`
	Memory     uint64   `json:"memory_bytes,omitempty"`
	CPU        uint8    `json:"cpu_percent,omitempty"`
	NumCPUs    uint32   `json:"num_cpus,omitempty"`
	Files      bool     `json:"machine_files,omitempty"`
	Cgroup     bool     `json:"cgroup,omitempty"`
}

type determinismView struct {
	RandomSeed *uint64 `json:"random_seed,omitempty"`
	TimeStart  *int64  `json:"time_start_unix,omitempty"`
	SortedDirs bool    `json:"deterministic_dirs"`
}

type paramView struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Default     *string  `json:"default,omitempty"`
	Pattern     string   `json:"pattern,omitempty"`
	Under       []string `json:"under,omitempty"`
	Description string   `json:"description,omitempty"`
	Origin      string   `json:"origin,omitempty"`
}

type seccompView struct {
	LogDenied bool         `json:"log_denied"`
	Filters   []filterView `json:"filters"`
}

type filterView struct {
	Arch                string     `json:"arch"`
	Instructions        int        `json:"instructions"`
	ObserveInstructions int        `json:"observe_instructions,omitempty"`
	Calls               []callView `json:"calls"`
}

type callView struct {
	Number  uint32       `json:"number"`
	Name    string       `json:"name"`
	Action  string       `json:"action"` // where no clause holds
	Reason  string       `json:"reason,omitempty"`
	Origin  string       `json:"origin,omitempty"`
	Clauses []clauseView `json:"clauses,omitempty"`
}

type clauseView struct {
	If     []string `json:"if"`
	Action string   `json:"action"`
	Reason string   `json:"reason,omitempty"`
	Origin string   `json:"origin,omitempty"`
}

type mechanismView struct {
	Feature string `json:"feature"`
	Choice  string `json:"choice"`
	Reason  string `json:"reason"`
}

type testView struct {
	Name   string `json:"name"`
	Expect string `json:"expect"`
	Event  string `json:"event"`
	Origin string `json:"origin,omitempty"`
}

func (p *Program) view() programView {
	v := programView{
		Format: FormatVersion, Name: p.Name, Description: p.Description,
		Target:   targetView{Landlock: int(p.Target.LandlockABI), Backend: p.Target.Backend},
		Requires: []requirementView{}, Params: []paramView{}, Mechanisms: []mechanismView{}, Tests: []testView{},
		Process: p.processView(), Landlock: p.landlockView(), Limits: p.limitsView(), Seccomp: p.seccompView(),
		Determinism: p.determinismView(), Rules: p.rulesView(), Network: p.netView(), HTTP: p.httpView(), View: p.namespacesView(),
		Branch: p.branchView(),
	}
	for _, a := range p.Target.Arches {
		v.Target.Arches = append(v.Target.Arches, a.String())
	}
	for _, r := range p.Requires {
		v.Requires = append(v.Requires, requirementView{r.Feature.String(), r.Min, r.Fields})
	}
	for _, q := range p.Params {
		view := paramView{q.Name, q.Type.String(), nil, q.Pattern, q.Under, q.Description, p.at(q.Origin)}
		if q.HasDefault {
			view.Default = &q.Default
		}
		v.Params = append(v.Params, view)
	}
	for _, m := range p.Mechanisms {
		v.Mechanisms = append(v.Mechanisms, mechanismView{m.Feature, m.Choice, m.Reason})
	}
	for _, t := range p.Tests {
		expect := "deny"
		if t.Allow {
			expect = "allow"
		}
		v.Tests = append(v.Tests, testView{t.Name, expect, t.Event(), p.at(t.Origin)})
	}
	return v
}

// at returns the place of an origin as text, "" if there is none.
func (p *Program) at(ref OriginRef) string {
	o, ok := p.Origin(ref)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d %s", o.File, o.Line, o.Col, o.Path)
}

func (p *Program) processView() processView {
	s := &p.Process
	v := processView{
		Supervised: s.Start != StartInPlace, Exec: s.Exec, Args: s.Args, Cwd: s.Cwd, CleanEnv: s.CleanEnv, PassEnv: s.PassEnv,
		Env: []envView{}, Capabilities: []string{},
		NoCoredump: s.NoCoredump, NoHugePages: s.NoHugePages, NoRandomizeMemory: s.NoRandomizeMemory,
	}
	for _, e := range s.Env {
		v.Env = append(v.Env, envView{e.Name, e.Value, p.at(e.Origin)})
	}
	for _, c := range s.Capabilities {
		v.Capabilities = append(v.Capabilities, capabilityName(c))
	}
	return v
}

func (p *Program) landlockView() landlockView {
	l := &p.Landlock
	v := landlockView{Handled: l.Handled.view(), Degrade: l.Degrade.view(), Paths: []pathView{}, Ports: []portView{}}
	kinds := map[PathKind]string{PathRequired: "required", PathOptional: "optional", PathNumbered: "numbered"}
	for _, r := range l.Paths {
		v.Paths = append(v.Paths, pathView{r.Path, l.ClassOf(r.Access), abi.FSRightNames(r.Access), kinds[r.Kind], p.at(r.Origin)})
	}
	for _, r := range l.Ports {
		view := portView{Access: abi.NetRightNames(r.Access), Param: r.Param, Origin: p.at(r.Origin)}
		if r.Param == "" {
			view.Port = &r.Port
		}
		v.Ports = append(v.Ports, view)
	}
	return v
}

func (r Rights) view() rightsView {
	return rightsView{abi.FSRightNames(r.FS), abi.NetRightNames(r.Net), abi.ScopeNames(r.Scoped)}
}

func (p *Program) limitsView() limitsView {
	l := &p.Limits
	return limitsView{
		l.Processes, l.OpenFiles, l.TimeMS, l.CPUCores, l.GPU.Mode == GPUAll, l.GPU.Devices, l.Memory, l.CPUPercent, l.CPUCount,
		l.MachineFiles,
		l.Backend == BackendCgroup,
	}
}

func (p *Program) determinismView() determinismView {
	d := &p.Determinism
	v := determinismView{SortedDirs: d.SortedDirs}
	if d.Random {
		v.RandomSeed = &d.Seed
	}
	if start := int64(d.TimeStart); d.ShiftTime {
		v.TimeStart = &start
	}
	return v
}

func (p *Program) seccompView() seccompView {
	v := seccompView{LogDenied: p.Seccomp.LogDenied, Filters: []filterView{}}
	for i := range p.Seccomp.Filters {
		f := &p.Seccomp.Filters[i]
		view := filterView{Arch: f.Arch.String(), Instructions: len(f.Program) / bpf.InsnSize, ObserveInstructions: len(f.Observe) / bpf.InsnSize}
		for _, call := range abi.Syscalls(f.Arch) {
			e := f.entryAt(call.Nr)
			c := callView{Number: call.Nr, Name: call.Name, Action: e.Action.String(), Reason: e.Reason, Origin: p.at(e.Origin)}
			for _, clause := range e.Clauses {
				c.Clauses = append(c.Clauses, clause.view(call.Name, p.at(clause.Origin)))
			}
			view.Calls = append(view.Calls, c)
		}
		v.Filters = append(v.Filters, view)
	}
	return v
}

func (c *Clause) view(call, origin string) clauseView {
	v := clauseView{Action: c.Action.String(), Reason: c.Reason, Origin: origin}
	for i := range c.Conds {
		v.If = append(v.If, c.Conds[i].text(call))
	}
	return v
}
