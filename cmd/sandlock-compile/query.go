package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

type testCmd struct {
	Policy []string `arg:"" help:"Policy files, one package, or an artifact (.sbx)."`
	Tag    []string `short:"t" placeholder:"KEY=VALUE" help:"Value for a @tag attribute of the policy. Repeatable."`
}

// Run asks the compiled program, not the policy: a test shows what will be enforced.
func (c *testCmd) Run(s *streams) error {
	p, err := s.program(c.Policy, c.Tag)
	if err != nil {
		return err
	}
	wrong := 0
	for i := range p.Tests {
		t := &p.Tests[i]
		for _, v := range ask(p, t) {
			if v.err == nil && v.ruling.Allowed == t.Allow {
				continue
			}
			wrong++
			fmt.Fprintf(s.out, "FAIL  %s\n", t.Name)
			fmt.Fprintf(s.out, "      %s: expected %s, got %s\n", t.Event(), verdict(t.Allow), v.text(p))
			if at := place(p, t.Origin); at != "" {
				fmt.Fprintf(s.out, "      test at %s\n", at)
			}
		}
	}
	if wrong > 0 {
		return failed("%d wrong answers to %d tests", wrong, len(p.Tests))
	}
	_, err = fmt.Fprintf(s.out, "ok    %s: %d tests\n", p.Name, len(p.Tests))
	return err
}

// answer is what the program says to an event, on the architectures that agree.
type answer struct {
	arches []abi.Arch
	ruling query.Ruling
	err    error
}

// ask asks for each architecture and puts equal answers together. Architectures without the system call are left out,
// as long as one has it.
func ask(p *ir.Program, t *ir.Test) []answer {
	var answers []answer
	var missing answer
	for _, arch := range p.Target.Arches {
		r, err := query.Event(p, arch, t)
		if errors.Is(err, query.ErrNoCall) {
			missing = answer{append(missing.arches, arch), r, err}
			continue
		}
		same := func(a answer) bool { return err == nil && a.err == nil && a.ruling == r }
		if i := slices.IndexFunc(answers, same); i >= 0 {
			answers[i].arches = append(answers[i].arches, arch)
			continue
		}
		answers = append(answers, answer{[]abi.Arch{arch}, r, err})
	}
	if len(answers) == 0 {
		return []answer{missing}
	}
	return answers
}

func verdict(allowed bool) string {
	if allowed {
		return "allow"
	}
	return "deny"
}

// text returns the answer in a line.
func (a answer) text(p *ir.Program) string {
	if a.err != nil {
		return a.err.Error()
	}
	parts := []string{verdict(a.ruling.Allowed)}
	if len(a.arches) < len(p.Target.Arches) {
		parts[0] += " on " + archNames(a.arches)
	}
	if a.ruling.Reason != "" {
		parts = append(parts, a.ruling.Reason)
	}
	if a.ruling.Rule != "" && a.ruling.Allowed {
		parts = append(parts, "by "+a.ruling.Rule)
	}
	if at := place(p, a.ruling.Origin); at != "" {
		parts = append(parts, "at "+at)
	}
	return strings.Join(parts, ": ")
}

func archNames(list []abi.Arch) string {
	var names []string
	for _, a := range list {
		names = append(names, a.String())
	}
	return strings.Join(names, " and ")
}

// place names where in the policy something was written.
func place(p *ir.Program, ref ir.OriginRef) string {
	o, ok := p.Origin(ref)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d (%s)", o.File, o.Line, o.Col, o.Path)
}

type explainCmd struct {
	Policy string            `arg:"" help:"Policy file or artifact (.sbx)."`
	Event  []string          `arg:"" help:"open PATH, connect ADDRESS, bind ADDRESS, http METHOD HOST/PATH, or syscall NAME [ARGUMENT…]."`
	For    string            `default:"read" enum:"read,write,execute" help:"What the file is opened for (${enum})."`
	Param  map[string]string `short:"p" placeholder:"NAME=VALUE" mapsep:"none" help:"Value of a parameter, or of cwd, home, tmp. Repeatable."`
}

func (c *explainCmd) Run(s *streams) error {
	t, err := c.event()
	if err != nil {
		text := err.Error()
		if g := (*policy.GrammarError)(nil); errors.As(err, &g) && g.Hint != "" {
			text += "\n\thint: " + g.Hint
		}
		return &codeError{codeUsage, text}
	}
	p, err := s.program([]string{c.Policy}, nil)
	if err != nil {
		return err
	}
	unbound, err := bindParams(p, c.Param)
	if err != nil {
		return &codeError{codeUsage, err.Error()}
	}
	denied := false
	for _, a := range ask(p, t) {
		if a.err != nil {
			return a.err
		}
		denied = denied || !a.ruling.Allowed
		fmt.Fprintln(s.out, t.Event()+": "+a.text(p))
	}
	if t.Kind == ir.TestOpen && t.For == "write" && !denied && query.Branched(p, t.Target) {
		fmt.Fprintln(s.out, "\tkept in the branch of "+p.Branch.Workdir+" until the end")
	}
	if t.Kind == ir.TestOpen {
		fmt.Fprintln(s.out, "\tpaths are compared as text here; sandlock-exec follows symbolic links when it starts")
	}
	if unbound = concerning(t, p, unbound); denied && len(unbound) > 0 {
		fmt.Fprintf(s.out, "\tnot bound, so rules with them match their own text only: %s\n", strings.Join(unbound, ", "))
	}
	return nil
}

// concerning returns the parameters that can matter to an event: ports to one about addresses, all others to a file.
func concerning(t *ir.Test, p *ir.Program, params []string) []string {
	return slices.DeleteFunc(params, func(name string) bool {
		port := slices.ContainsFunc(p.Params, func(q ir.Param) bool { return q.Name == name && q.Type == ir.ParamPort })
		return t.Kind == ir.TestSyscall || t.Kind == ir.TestHTTP || port == (t.Kind == ir.TestOpen)
	})
}

func (c *explainCmd) event() (*ir.Test, error) {
	kind, args := c.Event[0], c.Event[1:]
	if kind == "http" {
		return requestEvent(strings.Join(args, " "))
	}
	if len(args) == 0 || kind != "syscall" && len(args) != 1 || len(args) > 7 {
		return nil, fmt.Errorf("event %q: write open PATH, connect ADDRESS, bind ADDRESS, http METHOD HOST/PATH, or syscall NAME [ARGUMENT…]", strings.Join(c.Event, " "))
	}
	switch kind {
	case "open":
		path, err := policy.ParsePath(args[0])
		return &ir.Test{Kind: ir.TestOpen, Target: path, For: c.For}, err
	case "connect":
		e, err := policy.ParseConnect(args[0])
		return &ir.Test{Kind: ir.TestConnect, Target: lower.Address(e)}, err
	case "bind":
		e, err := policy.ParseBindEndpoint(args[0])
		return &ir.Test{Kind: ir.TestBind, Target: lower.Address(e)}, err
	case "syscall":
		return syscallEvent(args[0], args[1:])
	}
	return nil, fmt.Errorf("event %q is unknown: write open, connect, bind, http or syscall", kind)
}

// requestEvent takes "GET example.com/path", as one word or as two.
func requestEvent(text string) (*ir.Test, error) {
	target, err := policy.ParseHTTPRequest(text)
	return &ir.Test{Kind: ir.TestHTTP, Target: target}, err
}

func syscallEvent(name string, args []string) (*ir.Test, error) {
	if !abi.KnownSyscall(name) {
		return nil, fmt.Errorf("no such system call: %q", name)
	}
	t := &ir.Test{Kind: ir.TestSyscall, Target: name}
	for _, text := range args {
		n, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("argument %q is not a number of 64 bits", text)
		}
		t.Args = append(t.Args, n)
	}
	return t, nil
}

// bindParams puts values into the rules, and returns the names that stay open.
func bindParams(p *ir.Program, values map[string]string) (unbound []string, err error) {
	lookup := func(name string) (string, bool) {
		if v, ok := values[name]; ok {
			return v, true
		}
		for _, q := range p.Params {
			if q.Name == name && q.HasDefault {
				return q.Default, true
			}
		}
		return "", false
	}
	for name := range values {
		known := slices.Contains(ir.Builtins, name) || slices.ContainsFunc(p.Params, func(q ir.Param) bool { return q.Name == name })
		if !known {
			return nil, fmt.Errorf("the policy has no parameter %q", name)
		}
	}
	for _, q := range p.Params {
		if v, ok := lookup(q.Name); ok {
			if _, err := ir.Bind(q, v); err != nil {
				return nil, err
			}
		}
	}
	open := map[string]bool{}
	bindPath := func(t *ir.Template, expand func(ir.Template, ir.Lookup) (string, error)) error {
		names, err := ir.Names(*t)
		if err != nil {
			return err
		}
		bound := len(names) > 0
		for _, name := range names {
			if _, ok := lookup(name); !ok {
				open[name], bound = true, false
			}
		}
		if bound {
			*t, err = expand(*t, lookup)
		}
		return err
	}
	for i := range p.Landlock.Paths {
		if err := bindPath(&p.Landlock.Paths[i].Path, ir.ExpandPath); err != nil {
			return nil, err
		}
	}
	for i := range p.View.Mounts {
		if err := bindPath(&p.View.Mounts[i].Target, ir.ExpandPath); err != nil {
			return nil, err
		}
	}
	if err := bindPath(&p.Branch.Workdir, ir.ExpandPath); err != nil {
		return nil, err
	}
	for i := range p.View.Deny {
		if err := bindPath(&p.View.Deny[i].Path, ir.ExpandPath); err != nil {
			return nil, err
		}
	}
	for i := range p.View.Protect {
		if err := bindPath(&p.View.Protect[i].Path, ir.ExpandProtect); err != nil {
			return nil, err
		}
	}
	bindPort := func(param *string, lo, hi *uint16) error {
		if *param == "" {
			return nil
		}
		v, ok := lookup(*param)
		if !ok {
			open[*param] = true
			return nil
		}
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return fmt.Errorf("parameter %s: %q is not a port", *param, v)
		}
		*param, *lo, *hi = "", uint16(n), uint16(n)
		return nil
	}
	for i := range p.Landlock.Ports {
		r := &p.Landlock.Ports[i]
		if err := bindPort(&r.Param, &r.Port, &r.Port); err != nil {
			return nil, err
		}
	}
	ports := [][]ir.NetPort{p.Net.DenyBind}
	for i := range p.Net.Rules {
		ports = append(ports, p.Net.Rules[i].Ports)
	}
	for _, list := range ports {
		for i := range list {
			if err := bindPort(&list[i].Param, &list[i].Lo, &list[i].Hi); err != nil {
				return nil, err
			}
		}
	}
	for name := range open {
		unbound = append(unbound, name)
	}
	slices.Sort(unbound)
	return unbound, nil
}

type diffCmd struct {
	Before string `arg:"" help:"Policy file or artifact (.sbx)."`
	After  string `arg:"" help:"Policy file or artifact (.sbx)."`
	All    bool   `help:"Show equal lines too."`
}

func (c *diffCmd) Run(s *streams) error {
	var texts []string
	for _, name := range []string{c.Before, c.After} {
		p, err := s.program([]string{name}, nil)
		if err != nil {
			return err
		}
		texts = append(texts, p.Dump(ir.DumpOptions{}))
	}
	around := 2
	if c.All {
		around = len(texts[0]) + len(texts[1])
	}
	diff := lineDiff(texts[0], texts[1], around)
	if diff == "" {
		return nil
	}
	if _, err := io.WriteString(s.out, diff); err != nil {
		return err
	}
	return &codeError{code: codeFailed}
}
