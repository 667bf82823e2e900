package ir

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// Bounds on a program. They are far above what policies need; they keep hostile bytes from asking for much.
const (
	MaxPath = 4096 // bytes of a path, as PATH_MAX (linux/limits.h)
	MaxLine = 1024 // bytes of a reason, a policy path, a test's name

	maxName        = 64       // bytes of a parameter's name, characters of a program's
	maxDescription = 16 << 10 // bytes
	maxArgument    = 128 << 10
	maxPattern     = 4096
	maxList        = 1 << 16 // elements of any list: rules, entries, origins …
	maxArgs        = 4096
	maxParams      = 256
	maxClauses     = 1024 // of one table entry
	maxConds       = 64   // of one clause
)

// ErrInvalid is wrapped by every error of [Program.Validate].
var ErrInvalid = errors.New("invalid program")

// Validate checks the invariants of a program that the types cannot express, everything that the executor relies on
// when it maps fields to kernel calls. Lists are bounded, enumerations known, references in range, filters verified.
//
// To add a field: give it the next free tag in its struct, a line in codec.go, a check here, a line in dump.go.
func (p *Program) Validate() error {
	sections := [...]struct {
		name  string
		check func() error
	}{
		{"", p.checkIdentity},
		{"target", p.checkTarget},
		{"requires", p.checkRequires},
		{"params", p.checkParams}, // before the templates that use them
		{"process", p.checkProcess},
		{"landlock", p.checkLandlock},
		{"seccomp", p.checkSeccomp},
		{"limits", p.checkLimits},
		{"determinism", p.checkDeterminism},
		{"net", p.checkNet},
		{"http", p.checkHTTP},
		{"rules", p.checkRules},
		{"view", p.checkView},
		{"branch", p.checkBranch},
		{"start", p.checkStart},
		{"mechanisms", p.checkMechanisms},
		{"origins", p.checkOrigins},
		{"tests", p.checkTests},
	}
	for _, s := range sections {
		err := s.check()
		if err != nil && s.name != "" {
			err = fmt.Errorf("%s: %w", s.name, err)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return nil
}

// checkIdentity: the name becomes a directory entry and a host name.
func (p *Program) checkIdentity() error {
	switch n := p.Name; {
	case n == "" || n == "." || n == ".." || strings.Contains(n, "/"):
		return fmt.Errorf("name %q is not a file name", n)
	case utf8.RuneCountInString(n) > maxName:
		return fmt.Errorf("name of %d characters, at most %d are allowed", utf8.RuneCountInString(n), maxName)
	}
	if err := checkText(p.Name); err != nil {
		return fmt.Errorf("name %q: %w", p.Name, err)
	}
	return checkDescription(p.Description)
}

func (p *Program) checkTarget() error {
	t := &p.Target
	if len(t.Arches) == 0 {
		return errors.New("no architecture")
	}
	for i, a := range t.Arches {
		if !slices.Contains(abi.Arches, a) {
			return fmt.Errorf("architecture %d is unknown", a)
		}
		if i > 0 && a <= t.Arches[i-1] {
			return fmt.Errorf("architecture %s after %s: not ascending", a, t.Arches[i-1])
		}
	}
	if t.LandlockABI < 1 || t.LandlockABI > abi.LatestLandlock {
		return fmt.Errorf("landlock ABI %d, want 1 to %d", t.LandlockABI, abi.LatestLandlock)
	}
	switch t.Backend {
	case "auto", "namespace", "notify":
		return nil
	}
	return fmt.Errorf("backend %q is unknown", t.Backend)
}

func (p *Program) checkRequires() error {
	for i := range p.Requires {
		r := &p.Requires[i]
		if _, ok := featureNames[r.Feature]; !ok {
			return fmt.Errorf("feature %d is unknown", r.Feature)
		}
		if i > 0 && r.Feature <= p.Requires[i-1].Feature {
			return fmt.Errorf("feature %s after %s: not ascending", r.Feature, p.Requires[i-1].Feature)
		}
		if isLandlock := r.Feature == FeatureLandlock; isLandlock != (r.Min > 0) || r.Min > abi.LatestLandlock {
			return fmt.Errorf("feature %s with minimum %d", r.Feature, r.Min)
		}
		if err := checkNames(r.Fields, "field", checkLine); err != nil {
			return fmt.Errorf("feature %s: %w", r.Feature, err)
		}
	}
	return nil
}

func (p *Program) checkParams() error {
	if len(p.Params) > maxParams {
		return tooMany(len(p.Params), maxParams)
	}
	for i := range p.Params {
		param := &p.Params[i]
		if err := p.checkParam(param); err != nil {
			return fmt.Errorf("%q: %w", param.Name, err)
		}
		if slices.ContainsFunc(p.Params[:i], func(o Param) bool { return o.Name == param.Name }) {
			return fmt.Errorf("%q is declared twice", param.Name)
		}
	}
	return nil
}

func (p *Program) checkParam(param *Param) error {
	if slices.Contains(Builtins, param.Name) {
		return errors.New("name is built in")
	}
	if err := checkParam(param); err != nil {
		return err
	}
	for i, under := range param.Under {
		if err := p.checkPath(under); err != nil {
			return fmt.Errorf("under[%d]: %w", i, err)
		}
		names, err := Names(under)
		if err != nil {
			return err
		}
		for _, name := range names {
			// Parameters that name each other would have no order to be bound in.
			if !slices.Contains(Builtins, name) {
				return fmt.Errorf("under[%d] uses %q, only %v can be used here", i, name, Builtins)
			}
		}
	}
	return p.checkOrigin(param.Origin)
}

func (p *Program) checkMechanisms() error {
	for i, m := range p.Mechanisms {
		for _, s := range []string{m.Feature, m.Choice, m.Reason} {
			if err := checkLine(s); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		}
	}
	return nil
}

func (p *Program) checkOrigins() error {
	if len(p.Origins) > maxList {
		return tooMany(len(p.Origins), maxList)
	}
	for i := range p.Origins {
		o := &p.Origins[i]
		if o.Kind < OriginUser || o.Kind > OriginDerived {
			return fmt.Errorf("[%d]: kind %d is unknown", i, o.Kind)
		}
		// A path of the machine that compiled the policy would make the bytes depend on it.
		if strings.HasPrefix(o.File, "/") || len(o.File) > MaxPath {
			return fmt.Errorf("[%d]: file %q is not a relative path of at most %d bytes", i, o.File, MaxPath)
		}
		if err := checkText(o.File); err != nil {
			return fmt.Errorf("[%d]: file %q: %w", i, o.File, err)
		}
		if err := checkLine(o.Path); err != nil {
			return fmt.Errorf("[%d]: path %q: %w", i, o.Path, err)
		}
	}
	return nil
}

// checkOrigin holds when r is in the table of origins, or the table was stripped.
func (p *Program) checkOrigin(r OriginRef) error {
	if n := len(p.Origins); n > 0 && uint64(r) > uint64(n) {
		return fmt.Errorf("origin %d, the table has %d", r, n)
	}
	return nil
}

func (p *Program) checkTests() error {
	if len(p.Tests) > maxList {
		return tooMany(len(p.Tests), maxList)
	}
	for i := range p.Tests {
		t := &p.Tests[i]
		err := t.check()
		if err == nil {
			err = p.checkOrigin(t.Origin)
		}
		if err != nil {
			return fmt.Errorf("[%d] %q: %w", i, t.Name, err)
		}
	}
	return nil
}

func (t *Test) check() error {
	if err := checkLine(t.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if t.Target == "" || len(t.Target) > MaxPath {
		return fmt.Errorf("target of %d bytes, 1 to %d are allowed", len(t.Target), MaxPath)
	}
	if err := checkText(t.Target); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if t.Kind < TestOpen || t.Kind > TestHTTP {
		return fmt.Errorf("kind %d is unknown", t.Kind)
	}
	switch isOpen := t.Kind == TestOpen; {
	case isOpen && t.For != "read" && t.For != "write" && t.For != "execute":
		return fmt.Errorf("for %q, want read, write or execute", t.For)
	case !isOpen && t.For != "":
		return fmt.Errorf("for %q in a test that opens nothing", t.For)
	case len(t.Args) > 6 || len(t.Args) > 0 && t.Kind != TestSyscall:
		return fmt.Errorf("%d arguments; a system call has at most 6, other events none", len(t.Args))
	}
	return nil
}

func checkDescription(s string) error {
	if len(s) > maxDescription {
		return fmt.Errorf("description of %d bytes, at most %d are allowed", len(s), maxDescription)
	}
	for line := range strings.SplitSeq(s, "\n") {
		if err := checkText(strings.ReplaceAll(line, "\t", " ")); err != nil {
			return fmt.Errorf("description: %w", err)
		}
	}
	return nil
}

// checkLine holds for one line of text of modest length.
func checkLine(s string) error {
	if len(s) > MaxLine {
		return fmt.Errorf("text of %d bytes, at most %d are allowed", len(s), MaxLine)
	}
	return checkText(s)
}

// checkNames holds for lists of names, sorted, each once.
func checkNames(names []string, what string, check func(string) error) error {
	if len(names) > maxList {
		return tooMany(len(names), maxList)
	}
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("empty %s", what)
		}
		if i > 0 && name <= names[i-1] {
			return fmt.Errorf("%s %q after %q: not ascending", what, name, names[i-1])
		}
		if err := check(name); err != nil {
			return fmt.Errorf("%s %q: %w", what, name, err)
		}
	}
	return nil
}

// checkAscending holds for lists of numbers, sorted, each once.
func checkAscending[T ~uint8 | ~uint16 | ~uint32](list []T, what string, highest T) error {
	for i, n := range list {
		if n > highest {
			return fmt.Errorf("%s %d, at most %d is allowed", what, n, highest)
		}
		if i > 0 && n <= list[i-1] {
			return fmt.Errorf("%s %d after %d: not ascending", what, n, list[i-1])
		}
	}
	return nil
}

func tooMany(n, limit int) error { return fmt.Errorf("%d elements, at most %d are allowed", n, limit) }
