package exec

import (
	"bytes"
	"fmt"

	"github.com/sandlock-go/sandlock/exec/handler/clock"
	"github.com/sandlock-go/sandlock/exec/handler/image"
	"github.com/sandlock-go/sandlock/exec/handler/random"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// changesImages reports whether programs are prepared before they run, see package image.
func changesImages(p *ir.Program) bool { return p.Determinism.Random || p.Determinism.ShiftTime }

// determinism wires what answers instead of chance and the clock.
func (s *sandbox) determinism(w *wired, loop *supervise.Loop, j supervise.Journal) error {
	if !changesImages(s.program) {
		return nil
	}
	d := &s.program.Determinism
	vdso, _, err := kernel.OwnVDSO()
	if err != nil {
		return fmt.Errorf("determinism: %w", err)
	}
	images := image.Config{VDSO: vdso}
	rule := supervise.Event{Rule: "determinism.time_start", Origin: where(s.program, d.TimeOrigin)}
	if d.ShiftTime {
		h := clock.New(s.arch, clock.Config{Start: int64(d.TimeStart), Watch: loop.Watch, CanDefer: loop.CanDefer, Rule: rule}, j)
		seconds, nanoseconds := h.Shift()
		images.Clock = &image.Shift{Seconds: seconds, Nanoseconds: nanoseconds}
		w.list = append(w.list, h)
	}
	if d.Random {
		rule = supervise.Event{Rule: "determinism.random_seed", Origin: where(s.program, d.RandomOrigin)}
		index := supervise.NewIndex(loop)
		h := random.New(s.arch, random.Config{
			Seed: d.Seed, Of: index.Of, Args: s.arguments, Rule: rule, Grants: s.granted, Root: s.root,
		}, j)
		index.OnExit(h.Forget)
		images.Random = h.Image
		w.list = append(w.list, h)
	}
	h, err := image.New(s.arch, images, j, rule)
	if err != nil {
		return fmt.Errorf("determinism: %w", err)
	}
	w.list = append(w.list, h)
	return nil
}

// arguments returns how a process was started, in words that are the same in each run: the private temporary directory
// has another name each time.
func (s *sandbox) arguments(pid int) []byte {
	var b [4096]byte
	args, err := kernel.CommandLine(pid, b[:])
	if err != nil {
		return nil
	}
	if tmp := s.bound.tmp; tmp != "" {
		args = bytes.ReplaceAll(args, []byte(tmp), []byte("${tmp}"))
	}
	return args
}
