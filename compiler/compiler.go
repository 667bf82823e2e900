// Package compiler turns policy files into a program: the whole way from what people write to what is enforced.
//
// In: CUE files, read by compiler/load. Out: an [ir.Program], complete and valid, or diagnostics that name every
// mistake at once. The same files give the same program on every host, every day: nothing here looks at the clock,
// the environment, the network or the machine. It never writes files and never links the executor.
//
// Read next: passes.go (what happens in which order, and why), unsupported.go (what the language can say and this
// build cannot enforce), compiler/check, compiler/lower, compiler/seccomp.
package compiler

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/ir"
)

// Options says what to compile.
type Options struct {
	Source load.Options
	Strip  bool // leave the origins out

	// After, if set, is called after each pass with the program as far as it is made. It must not keep or change it.
	After func(pass string, p *ir.Program)
}

// BugError is a mistake of the compiler, never of the policy.
type BugError struct {
	Pass  string
	Err   error
	Stack []byte // of a panic
}

func (e *BugError) Error() string { return fmt.Sprintf("pass %s: %v", e.Pass, e.Err) }

func (e *BugError) Unwrap() error { return e.Err }

// Compile compiles one policy. The program is nil if the diagnostics hold an error; they may hold warnings beside a
// program. The error is a [*BugError].
func Compile(o Options) (*ir.Program, diag.List, error) {
	u := &unit{options: o}
	for _, p := range passes {
		if p.needsSound && u.diags.HasErrors() {
			break
		}
		if err := u.run(p); err != nil {
			return nil, u.diags.Sorted(), &BugError{Pass: p.name, Err: err, Stack: stackOf(err)}
		}
	}
	if u.diags.HasErrors() {
		return nil, u.diags.Sorted(), nil
	}
	return u.Program, u.diags.Sorted(), nil
}

// run runs one pass. A panic is a bug like any other: it must not look like a mistake in the policy, nor pass as
// success.
func (u *unit) run(p pass) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	if err := p.run(u); err != nil {
		return err
	}
	if u.options.After != nil && u.Unit != nil {
		u.options.After(p.name, u.Program)
	}
	return nil
}

type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func stackOf(err error) []byte {
	if p := (*panicError)(nil); errors.As(err, &p) {
		return p.stack
	}
	return nil
}
