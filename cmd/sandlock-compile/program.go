package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/sandlock-go/sandlock/compiler"
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/load"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/seal"
)

// source is how every command takes a policy: files, one package, or "-".
type source struct {
	Policy []string `arg:"" name:"policy" help:"Policy files (.cue), one package, or - for standard input."`
	Tag    []string `short:"t" placeholder:"KEY=VALUE" help:"Value for a @tag attribute of the policy. Repeatable."`
}

func (o source) options(s *streams) compiler.Options {
	return compiler.Options{Source: load.Options{Args: o.Policy, Stdin: s.in, Tags: o.Tag}}
}

// compile compiles a policy and prints its diagnostics. The error of a policy with mistakes has been printed.
func (s *streams) compile(o compiler.Options, asJSON bool) (*ir.Program, error) {
	p, diags, err := compiler.Compile(o)
	if printErr := s.diagnostics(s.err, diags, asJSON); printErr != nil && err == nil {
		err = printErr
	}
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, &codeError{code: codePolicy}
	}
	return p, nil
}

func (s *streams) diagnostics(w io.Writer, diags diag.List, asJSON bool) error {
	if asJSON {
		return diags.WriteJSON(w)
	}
	_, err := io.WriteString(w, diags.String())
	return err
}

// program returns the program of a policy or of an artifact.
func (s *streams) program(args, tags []string) (*ir.Program, error) {
	if len(args) == 1 && isArtifact(args[0]) {
		if len(tags) > 0 {
			return nil, &codeError{codeUsage, "tags are for policies; " + args[0] + " is compiled already"}
		}
		return openArtifact(args[0])
	}
	return s.compile(source{Policy: args, Tag: tags}.options(s), false)
}

// isArtifact tells an artifact from a policy: by its first bytes, or where there are none by its name.
func isArtifact(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return strings.HasSuffix(name, ".sbx")
	}
	defer f.Close()
	head := make([]byte, len(seal.Magic))
	n, _ := io.ReadFull(f, head)
	return bytes.Equal(head[:n], []byte(seal.Magic)) || strings.HasSuffix(name, ".sbx")
}

func openArtifact(name string) (*ir.Program, error) {
	a, err := readArtifact(name)
	if err != nil {
		return nil, err
	}
	p, err := ir.Decode(a.Payload)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func readArtifact(name string) (*seal.Artifact, error) {
	file, err := readFile(name, seal.MaxFile)
	if err != nil {
		return nil, err
	}
	a, err := seal.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// readFile reads a file of bounded size.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, pathError(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, pathError(err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return b, nil
}

// pathError puts the name of a file before what is wrong with it.
func pathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}

// pack returns the artifact of a program.
func pack(p *ir.Program) ([]byte, error) {
	payload, err := ir.Encode(p)
	if err != nil {
		return nil, &compiler.BugError{Pass: "encode", Err: err}
	}
	return seal.Seal(payload), nil
}
