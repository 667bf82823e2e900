package load

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"cuelang.org/go/cue/scanner"
	"cuelang.org/go/cue/token"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/policy"
)

// maxOperators bounds the operators of one expression. CUE's parser bounds nesting, but evaluates "1+1+1+…" by
// recursion on the left side, so a long chain could end the process instead of failing.
const maxOperators = 4096

// checkBytes refuses what a policy file must not contain, and records where.
func (s *source) checkBytes(name string, data []byte) error {
	fail := func(offset int, rule, format string, args ...any) error {
		place := s.names.file(name)
		if offset >= 0 {
			place.Line = 1 + bytes.Count(data[:offset], []byte("\n"))
			place.Col = offset - bytes.LastIndexByte(data[:offset], '\n')
		}
		d := diag.Diagnostic{Pos: place, Rule: rule, Msg: fmt.Sprintf(format, args...)}
		s.parsed.Add(d)
		return &policy.GrammarError{Rule: rule, Msg: d.Msg}
	}
	if len(data) > maxFile {
		return fail(-1, "file-size", "is larger than %d bytes", maxFile)
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return fail(i, "text", "contains a NUL byte")
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return fail(i, "text", "is not valid UTF-8 (byte %#02x)", data[i])
		}
		i += size
	}
	if offset := longExpression(name, data); offset >= 0 {
		return fail(offset, "expression-size", "expression has more than %d operators", maxOperators)
	}
	return nil
}

// longExpression returns the offset at which an expression exceeds maxOperators, or -1.
func longExpression(name string, data []byte) int {
	var s scanner.Scanner
	file := token.NewFile(name, -1, len(data))
	s.Init(file, data, func(token.Pos, string, []any) {}, 0)
	operators := 0
	for {
		pos, tok, _ := s.Scan()
		switch {
		case tok == token.EOF:
			return -1
		case tok == token.COMMA:
			operators = 0
		case tok.IsOperator():
			if operators++; operators > maxOperators {
				return pos.Offset()
			}
		}
	}
}
