package ir

import "fmt"

// MaxPayload bounds an encoded program. Real ones are tens of kilobytes.
const MaxPayload = 8 << 20

// Encode writes p as deterministic CBOR (RFC 8949 §4.2.1). It refuses a program that [Program.Validate] refuses, so
// whatever it writes, [Decode] reads.
func Encode(p *Program) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("encode program: %w", err)
	}
	w := &wire{encoding: true}
	w.program(p)
	if n := len(w.out); w.err == nil && n > MaxPayload {
		w.fail("payload of %d bytes, at most %d are allowed", n, MaxPayload)
	}
	if w.err != nil {
		return nil, fmt.Errorf("encode program: %w", w.err)
	}
	return w.out, nil
}

// Decode reads a program. The bytes are hostile until it returns: it accepts only what Encode writes for the program
// that it returns, and only programs that hold [Program.Validate].
func Decode(b []byte) (*Program, error) {
	if len(b) > MaxPayload {
		return nil, fmt.Errorf("decode program: payload of %d bytes, at most %d are allowed", len(b), MaxPayload)
	}
	p, err := unmarshal(b)
	if err == nil {
		err = p.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("decode program: %w", err)
	}
	return p, nil
}

func unmarshal(b []byte) (*Program, error) {
	w, p := &wire{in: string(b)}, new(Program)
	w.program(p)
	if rest := len(w.in) - w.pos; rest > 0 {
		w.fail("%d bytes after the end", rest)
	}
	return p, w.err
}

// The methods below describe every type once, for both directions. The tags in program.go and sections.go say the
// same in the form that CBOR libraries read; a test holds the two descriptions together.

func (w *wire) program(p *Program) {
	m := w.fields("program")
	m.must(1).text(&p.Name)
	m.optText(2, &p.Description)
	m.must(3).target(&p.Target)
	optList(m, 4, &p.Requires, (*wire).requirement)
	m.must(5).process(&p.Process)
	m.must(6).landlock(&p.Landlock)
	m.must(7).seccomp(&p.Seccomp)
	m.must(8).limits(&p.Limits)
	optList(m, 9, &p.Params, (*wire).param)
	optList(m, 10, &p.Mechanisms, (*wire).mechanism)
	optList(m, 11, &p.Origins, (*wire).origin)
	optList(m, 12, &p.Tests, (*wire).test)
	m.must(13).determinism(&p.Determinism)
	optList(m, 14, &p.Rules, (*wire).dynamicRule)
	m.must(15).net(&p.Net)
	m.must(16).http(&p.HTTP)
	m.must(17).view(&p.View)
	m.must(18).branch(&p.Branch)
	m.end()
}

func (w *wire) origin(o *Origin) {
	w.tuple(5)
	w.text(&o.File)
	unsigned(w, &o.Line)
	unsigned(w, &o.Col)
	w.text(&o.Path)
	unsigned(w, &o.Kind)
}

func (w *wire) target(t *Target) {
	m := w.fields("target")
	octets(m.must(1), &t.Arches)
	unsigned(m.must(2), &t.LandlockABI)
	m.must(3).text(&t.Backend)
	m.end()
}

func (w *wire) requirement(r *Requirement) {
	w.tuple(3)
	unsigned(w, &r.Feature)
	unsigned(w, &r.Min)
	list(w, &r.Fields, (*wire).text)
}

func (w *wire) mechanism(m *Mechanism) {
	w.tuple(3)
	w.text(&m.Feature)
	w.text(&m.Choice)
	w.text(&m.Reason)
}

func (w *wire) process(p *Process) {
	m := w.fields("process")
	unsigned(m.must(1), &p.Start)
	m.optText(2, &p.Exec)
	optList(m, 3, &p.Args, (*wire).text)
	optList(m, 4, &p.Env, (*wire).envVar)
	m.optBoolean(5, &p.CleanEnv)
	optList(m, 6, &p.PassEnv, (*wire).text)
	m.optText(7, &p.Cwd)
	m.optBytes(8, &p.Capabilities)
	m.optBoolean(9, &p.NoCoredump)
	m.optBoolean(10, &p.NoHugePages)
	m.optBoolean(11, &p.NoRandomizeMemory)
	m.end()
}

func (w *wire) envVar(v *EnvVar) {
	w.tuple(3)
	w.text(&v.Name)
	w.text(&v.Value)
	unsigned(w, &v.Origin)
}

func (w *wire) limits(l *Limits) {
	m := w.fields("limits")
	optUnsigned(m, 1, &l.Processes)
	optUnsigned(m, 2, &l.OpenFiles)
	optUnsigned(m, 3, &l.TimeMS)
	optList(m, 4, &l.CPUCores, unsigned[uint16])
	m.must(5).gpu(&l.GPU)
	optUnsigned(m, 6, &l.ProcessesOrigin)
	optUnsigned(m, 7, &l.TimeOrigin)
	optUnsigned(m, 8, &l.Memory)
	optUnsigned(m, 9, &l.CPUPercent)
	optUnsigned(m, 10, &l.CPUCount)
	optUnsigned(m, 11, &l.MemoryOrigin)
	optUnsigned(m, 12, &l.CPUOrigin)
	m.optBoolean(13, &l.MachineFiles)
	optUnsigned(m, 14, &l.Backend)
	m.end()
}

func (w *wire) determinism(d *Determinism) {
	m := w.fields("determinism")
	m.optBoolean(1, &d.Random)
	optUnsigned(m, 2, &d.Seed)
	m.optBoolean(3, &d.ShiftTime)
	optUnsigned(m, 4, &d.TimeStart)
	m.optBoolean(5, &d.SortedDirs)
	optUnsigned(m, 6, &d.RandomOrigin)
	optUnsigned(m, 7, &d.TimeOrigin)
	optUnsigned(m, 8, &d.DirsOrigin)
	m.end()
}

func (w *wire) gpu(g *GPU) {
	w.tuple(2)
	unsigned(w, &g.Mode)
	list(w, &g.Devices, unsigned[uint16])
}

func (w *wire) landlock(l *Landlock) {
	m := w.fields("landlock")
	m.must(1).rights(&l.Handled)
	m.must(2).rights(&l.Degrade)
	optList(m, 3, &l.Paths, (*wire).pathRule)
	optList(m, 4, &l.Ports, (*wire).portRule)
	m.end()
}

func (w *wire) rights(r *Rights) {
	w.tuple(3)
	unsigned(w, &r.FS)
	unsigned(w, &r.Net)
	unsigned(w, &r.Scoped)
}

func (w *wire) pathRule(r *PathRule) {
	w.tuple(4)
	w.text(&r.Path)
	unsigned(w, &r.Access)
	unsigned(w, &r.Kind)
	unsigned(w, &r.Origin)
}

func (w *wire) portRule(r *PortRule) {
	w.tuple(4)
	unsigned(w, &r.Access)
	unsigned(w, &r.Port)
	w.text(&r.Param)
	unsigned(w, &r.Origin)
}

func (w *wire) seccomp(s *Seccomp) {
	m := w.fields("seccomp")
	m.optBoolean(1, &s.LogDenied)
	list(m.must(2), &s.Filters, (*wire).archFilter)
	m.end()
}

func (w *wire) archFilter(f *ArchFilter) {
	m := w.fields("filter")
	unsigned(m.must(1), &f.Arch)
	list(m.must(2), &f.Table, (*wire).syscallEntry)
	m.must(3).bytes(&f.Program)
	m.optBytes(4, &f.Observe)
	optList(m, 5, &f.ObserveCalls, unsigned[uint32])
	m.end()
}

func (w *wire) syscallEntry(e *SyscallEntry) {
	w.tuple(5)
	unsigned(w, &e.First)
	list(w, &e.Clauses, (*wire).clause)
	w.action(&e.Action)
	w.text(&e.Reason)
	unsigned(w, &e.Origin)
}

func (w *wire) clause(c *Clause) {
	w.tuple(4)
	list(w, &c.Conds, (*wire).cond)
	w.action(&c.Action)
	w.text(&c.Reason)
	unsigned(w, &c.Origin)
}

func (w *wire) cond(c *Cond) {
	w.tuple(4)
	unsigned(w, &c.Arg)
	unsigned(w, &c.Op)
	unsigned(w, &c.Mask)
	unsigned(w, &c.Value)
}

func (w *wire) action(a *Action) {
	w.tuple(2)
	unsigned(w, &a.Kind)
	unsigned(w, &a.Errno)
}

func (w *wire) param(p *Param) {
	w.tuple(8)
	w.text(&p.Name)
	unsigned(w, &p.Type)
	w.boolean(&p.HasDefault)
	w.text(&p.Default)
	w.text(&p.Pattern)
	list(w, &p.Under, (*wire).text)
	w.text(&p.Description)
	unsigned(w, &p.Origin)
}

func (w *wire) test(t *Test) {
	w.tuple(7)
	w.text(&t.Name)
	w.boolean(&t.Allow)
	unsigned(w, &t.Kind)
	w.text(&t.Target)
	w.text(&t.For)
	list(w, &t.Args, unsigned[uint64])
	unsigned(w, &t.Origin)
}
