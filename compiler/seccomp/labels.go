package seccomp

import (
	"fmt"
	"math"

	elastic "github.com/elastic/go-seccomp-bpf"
	netbpf "golang.org/x/net/bpf"

	"github.com/sandlock-go/sandlock/ir/bpf"
)

// assembler collects instructions with symbolic targets and turns them into a program.
//
// Labels are resolved by the assembler of go-seccomp-bpf. This type adds what that one lacks: loads of number and
// architecture, masks, and long jumps. A conditional jump reaches 255 instructions. Beyond that go-seccomp-bpf inserts
// detours, but miscounts them (v1.6.0: of 300 comparisons in a row with one target behind them, the first 255 end up
// elsewhere). So layout decides beforehand which targets are far, and those get an unconditional jump next to the
// branch; the library never sees a distance above 255.
//
// It also drops what control cannot reach, and loads that would not change the accumulator.
type assembler struct {
	ops   []op
	bound []bool        // by label: set
	held  []accumulator // by label: joined over the jumps to it
	now   accumulator   // before the next instruction
}

type label int

// op is an instruction, or the mark of a label.
type op struct {
	kind    opKind
	k       uint32
	test    netbpf.JumpTest
	yes, no label
	// far tells which targets of a branch need a long jump.
	farYes, farNo bool
}

type opKind uint8

const (
	opMark opKind = iota
	opLoad
	opMask
	opBranch
	opReturn
)

// accumulator is what is known of register A.
type accumulator struct {
	reached bool // control can get here
	known   bool // A is the word at off, masked
	off     uint32
	mask    uint32
}

func (a accumulator) join(b accumulator) accumulator {
	switch {
	case !a.reached:
		return b
	case !b.reached || a == b:
		return a
	}
	return accumulator{reached: true}
}

func newAssembler() *assembler {
	return &assembler{now: accumulator{reached: true}}
}

func (a *assembler) newLabel() label {
	a.bound = append(a.bound, false)
	a.held = append(a.held, accumulator{})
	return label(len(a.bound) - 1)
}

// mark sets a label to the next instruction. Jumps go forward only, so all jumps to it exist already.
func (a *assembler) mark(l label) {
	a.bound[l] = true
	a.now = a.now.join(a.held[l])
	a.ops = append(a.ops, op{kind: opMark, yes: l})
}

// load puts the masked word of seccomp_data at off into A.
func (a *assembler) load(off, mask uint32) {
	want := accumulator{reached: true, known: true, off: off, mask: mask}
	if !a.now.reached || a.now == want {
		return
	}
	if holdsMore := a.now.known && a.now.off == off && a.now.mask&mask == mask; !holdsMore {
		a.ops = append(a.ops, op{kind: opLoad, k: off})
	}
	if mask != math.MaxUint32 {
		a.ops = append(a.ops, op{kind: opMask, k: mask})
	}
	a.now = want
}

// branch compares A with k. Control does not fall through it.
func (a *assembler) branch(test netbpf.JumpTest, k uint32, yes, no label) {
	if !a.now.reached {
		return
	}
	for _, l := range []label{yes, no} {
		if a.bound[l] {
			panic("seccomp: jump backward")
		}
		a.held[l] = a.held[l].join(a.now)
	}
	a.ops = append(a.ops, op{kind: opBranch, test: test, k: k, yes: yes, no: no})
	a.now = accumulator{}
}

// ret ends the program with an action.
func (a *assembler) ret(r bpf.Return) {
	if !a.now.reached {
		return
	}
	a.ops = append(a.ops, op{kind: opReturn, k: uint32(r)})
	a.now = accumulator{}
}

// size returns the number of instructions of an op.
func (o op) size() int {
	switch {
	case o.kind == opMark:
		return 0
	case o.farYes && o.farNo:
		return 3
	case o.farYes || o.farNo:
		return 2
	}
	return 1
}

// layout decides which targets are far, and returns the position of each label. Making one target far moves others
// away, so it repeats until nothing changes; targets never become near again, so it ends.
func (a *assembler) layout() []int {
	position := make([]int, len(a.bound))
	for {
		at := 0
		for _, o := range a.ops {
			if o.kind == opMark {
				position[o.yes] = at
			}
			at += o.size()
		}
		at, changed := 0, false
		for i := range a.ops {
			o := &a.ops[i]
			if o.kind == opBranch {
				// Counted from the branch, past the long jumps that the other target may need.
				far := func(l label) bool { return position[l]-at-1 > math.MaxUint8-2 }
				if !o.farYes && far(o.yes) {
					o.farYes, changed = true, true
				}
				if !o.farNo && far(o.no) {
					o.farNo, changed = true, true
				}
			}
			at += o.size()
		}
		if !changed {
			return position
		}
	}
}

// assemble emits the program.
func (a *assembler) assemble() ([]bpf.Insn, error) {
	position := a.layout()
	e := newEmitter(len(a.bound))
	for _, o := range a.ops {
		switch o.kind {
		case opMark:
			e.lib.SetLabel(e.labels[o.yes])
		case opLoad:
			e.raw(netbpf.LoadAbsolute{Off: o.k, Size: 4})
		case opMask:
			e.raw(netbpf.ALUOpConstant{Op: netbpf.ALUOpAnd, Val: o.k})
		case opReturn:
			e.lib.Ret(elastic.Action(o.k))
			e.at++
		case opBranch:
			e.branch(o, position)
		}
	}
	return e.finish()
}

// emitter hands instructions to go-seccomp-bpf. Those that it has no method for are given as a placeholder, a load
// from behind struct seccomp_data, and put in when the labels are resolved.
type emitter struct {
	lib    elastic.Program
	labels []elastic.Label
	raws   []netbpf.Instruction
	at     int // index of the next instruction
}

const (
	placeholderArg = 6 // the first argument that a system call does not have
	placeholderOff = bpf.OffArgs + 8*placeholderArg
)

func newEmitter(labels int) *emitter {
	e := &emitter{lib: elastic.NewProgram()}
	for range labels {
		e.labels = append(e.labels, e.lib.NewLabel())
	}
	return e
}

func (e *emitter) raw(in netbpf.Instruction) {
	e.raws = append(e.raws, in)
	e.lib.LdLo(placeholderArg)
	e.at++
}

func (e *emitter) branch(o op, position []int) {
	yes, no := e.labels[o.yes], e.labels[o.no]
	if o.farYes {
		yes = e.lib.NewLabel()
	}
	if o.farNo {
		no = e.lib.NewLabel()
	}
	e.lib.JmpIf(o.test, o.k, yes, no)
	e.at++
	if o.farYes {
		e.lib.SetLabel(yes)
		e.raw(netbpf.Jump{Skip: uint32(position[o.yes] - e.at - 1)})
	}
	if o.farNo {
		e.lib.SetLabel(no)
		e.raw(netbpf.Jump{Skip: uint32(position[o.no] - e.at - 1)})
	}
}

func (e *emitter) finish() ([]bpf.Insn, error) {
	resolved, err := e.lib.Assemble()
	if err != nil {
		return nil, err
	}
	if len(resolved) != e.at {
		return nil, fmt.Errorf("go-seccomp-bpf changed the layout: %d instructions, want %d", len(resolved), e.at)
	}
	insns := make([]bpf.Insn, len(resolved))
	for i, in := range resolved {
		if load, ok := in.(netbpf.LoadAbsolute); ok && load.Off >= placeholderOff {
			in, e.raws = e.raws[0], e.raws[1:]
		}
		encoded, err := in.Assemble()
		if err != nil {
			return nil, fmt.Errorf("instruction %d: %w", i, err)
		}
		insns[i] = bpf.Insn{Code: encoded.Op, JT: encoded.Jt, JF: encoded.Jf, K: encoded.K}
	}
	return insns, nil
}
