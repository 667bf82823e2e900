package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/sandlock-go/sandlock/compiler"
	"github.com/sandlock-go/sandlock/ir"
)

type compileCmd struct {
	source
	Output string `short:"o" required:"" placeholder:"p.sbx" help:"Artifact to write, - for standard output."`
	Strip  bool   `help:"Leave out where in the policy each rule was written."`
	JSON   bool   `name:"json" help:"Print diagnostics as JSON."`
}

func (c *compileCmd) Run(s *streams) error {
	for _, in := range c.Policy {
		if in != "-" && sameFile(in, c.Output) {
			return &codeError{codeUsage, fmt.Sprintf("%s is the policy itself: choose another output", c.Output)}
		}
	}
	o := c.options(s)
	o.Strip = c.Strip
	p, err := s.compile(o, c.JSON)
	if err != nil {
		return err
	}
	file, err := pack(p)
	if err != nil {
		return err
	}
	return s.write(c.Output, file)
}

type vetCmd struct {
	source
	JSON bool `name:"json" help:"Print diagnostics as JSON, to standard output."`
}

func (c *vetCmd) Run(s *streams) error {
	p, diags, err := compiler.Compile(c.options(s))
	if err != nil {
		return err
	}
	w := s.err
	if c.JSON {
		w = s.out
	}
	if err := s.diagnostics(w, diags, c.JSON); err != nil {
		return err
	}
	if p == nil {
		return &codeError{code: codePolicy}
	}
	return nil
}

type dumpCmd struct {
	Policy  []string `arg:"" help:"Policy files, one package, or an artifact (.sbx)."`
	Tag     []string `short:"t" placeholder:"KEY=VALUE" help:"Value for a @tag attribute of the policy. Repeatable."`
	BPF     bool     `name:"bpf" help:"Add the disassembled seccomp programs."`
	Origins bool     `help:"Add where each rule was written."`
	JSON    bool     `name:"json" help:"Print all of the program as JSON."`
}

func (c *dumpCmd) Run(s *streams) error {
	p, err := s.program(c.Policy, c.Tag)
	if err != nil {
		return err
	}
	if c.JSON {
		return p.DumpJSON(s.out)
	}
	_, err = io.WriteString(s.out, p.Dump(ir.DumpOptions{Origins: c.Origins, BPF: c.BPF}))
	return err
}

type initCmd struct {
	Dir string `arg:"" default:"." help:"Directory for policy.cue."`
}

func (c *initCmd) Run(s *streams) error {
	name := filepath.Join(c.Dir, "policy.cue")
	if err := createNew(name, starter); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "wrote %s; compile it with: sandlock-compile %s -o policy.sbx\n", name, name)
	return err
}
