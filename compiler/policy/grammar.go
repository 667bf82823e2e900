package policy

import (
	"fmt"
	"unicode/utf8"

	"github.com/sandlock-go/sandlock/ir"
)

// GrammarError says why a text is not in one of the language's small grammars.
type GrammarError struct {
	Rule string // stable identifier, such as "net-rule"
	Msg  string
	Hint string // "" = none
}

func (e *GrammarError) Error() string { return e.Msg }

func grammarErrorf(rule, hint, format string, args ...any) error {
	return &GrammarError{Rule: rule, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// ParseLine takes one line of text that people read.
func ParseLine(s string) (string, error) {
	if len(s) > ir.MaxLine {
		return "", grammarErrorf("text", "", "text of %d bytes, at most %d are allowed", len(s), ir.MaxLine)
	}
	return s, CheckText(s)
}

// CheckText refuses what a C string or a line of text cannot hold: bytes that are not UTF-8, NUL, and control
// characters, with which a path could forge lines of a golden file or a terminal's state.
func CheckText(s string) error {
	for i, r := range s {
		switch {
		case r == 0:
			return grammarErrorf("text", "", "%q contains a NUL byte", s)
		case r < 0x20 || 0x7f <= r && r < 0xa0 || r == '\u2028' || r == '\u2029':
			return grammarErrorf("text", "", "%q contains the control character %U", s, r)
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return grammarErrorf("text", "", "%q is not valid UTF-8", s)
			}
		}
	}
	return nil
}
