package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a file of stages.
const (
	maxStageFile = 1 << 20 // bytes
	maxStages    = 64      // commands
)

// stageSpec is one stage, or group of stages, as the file has it.
type stageSpec struct {
	name     string // "" if it has none
	parallel []stageSpec
	stages   []stageSpec
	optional bool

	// Of one stage:
	artifact string
	argv     []string // nil for the policy's own command
	params   map[string]string
	cwd      string
}

// readStages reads a file of stages; "-" is standard input.
func readStages(path string, in io.Reader) ([]stageSpec, error) {
	name := path
	if path == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxStageFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxStageFile {
		return nil, fmt.Errorf("%s: is longer than %d bytes", name, maxStageFile)
	}
	stages, err := parseStages(text)
	var at *stageError
	if errors.As(err, &at) {
		before := text[:at.offset]
		return nil, fmt.Errorf("%s:%d:%d: %s", name, 1+bytes.Count(before, []byte("\n")), 1+len(before)-(1+bytes.LastIndexByte(before, '\n')), at.what)
	}
	return stages, err
}

// stageError is a mistake in a file of stages.
type stageError struct {
	offset int
	what   string
}

func (e *stageError) Error() string { return fmt.Sprintf("byte %d: %s", e.offset, e.what) }

// parseStages parses a file of stages. Package json would take a key in any case, the last one of several, and U+FFFD for what
// is no text: a file that says what is to run is read as it stands, or not at all.
func parseStages(text []byte) (stages []stageSpec, err error) {
	r := &stageReader{text: text, dec: json.NewDecoder(bytes.NewReader(text)), left: maxStages}
	if !utf8.Valid(text) {
		return nil, &stageError{0, "is no UTF-8 text"}
	}
	found, err := r.object("the file", map[string]func() error{
		"stages": func() error {
			stages, err = r.stages("stages", ofTransaction)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	if !slices.Contains(found, "stages") {
		return nil, r.fault(`it has no "stages"`)
	}
	r.start()
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, r.fault("something follows the end")
	}
	return stages, nil
}

// stagesOf is what a list of stages is of: that says what may be in it.
type stagesOf string

const (
	ofTransaction stagesOf = "a stage"
	ofSequence    stagesOf = "a stage in a group"
	ofParallel    stagesOf = "a stage that runs beside others"
)

func (r *stageReader) stages(what string, of stagesOf) (list []stageSpec, err error) {
	list = []stageSpec{}
	err = r.array(what, func() error {
		s, err := r.stage(of)
		list = append(list, s)
		return err
	})
	if err == nil && len(list) == 0 && of != ofTransaction {
		err = r.fault("%s is empty", what)
	}
	return list, err
}

func (r *stageReader) stage(of stagesOf) (s stageSpec, err error) {
	text := func(to *string, what string) func() error {
		return func() (err error) {
			if *to, err = r.string(what); err == nil && *to == "" {
				err = r.fault("%s is empty", what)
			}
			return err
		}
	}
	fields := map[string]func() error{
		"name":     text(&s.name, "name"),
		"artifact": text(&s.artifact, "artifact"),
		"cwd":      text(&s.cwd, "cwd"),
		"argv": func() error {
			return r.array("argv", func() error {
				arg, err := r.string("an element of argv")
				s.argv = append(s.argv, arg)
				return err
			})
		},
		"params": func() error {
			s.params = map[string]string{}
			return r.entries("params", func(key string) (err error) {
				s.params[key], err = r.string("a parameter's value")
				return err
			})
		},
	}
	if of != ofParallel {
		fields["parallel"] = func() error {
			s.parallel, err = r.stages("parallel", ofParallel)
			return err
		}
	}
	if of == ofTransaction {
		fields["stages"] = func() error {
			s.stages, err = r.stages("stages", ofSequence)
			return err
		}
		fields["optional"] = func() error {
			s.optional, err = r.bool("optional")
			return err
		}
	}
	r.start()
	begin := r.at
	found, err := r.object(string(of), fields)
	if err == nil {
		r.at = begin
		err = r.shape(of, found)
	}
	return s, err
}

// shape checks that a stage is one thing.
func (r *stageReader) shape(of stagesOf, found []string) error {
	kinds := slices.DeleteFunc([]string{"artifact", "parallel", "stages"}, func(kind string) bool { return !slices.Contains(found, kind) })
	switch {
	case len(kinds) == 0:
		return r.fault(`%s has no "artifact"`, of)
	case len(kinds) > 1:
		return r.fault("%s has both %q and %q", of, kinds[0], kinds[1])
	case kinds[0] == "artifact":
		if r.left--; r.left < 0 {
			return r.fault("there are more than %d stages", maxStages)
		}
		return nil
	}
	for _, key := range []string{"argv", "params", "cwd"} {
		if slices.Contains(found, key) {
			return r.fault("a group has no %q: its stages have", key)
		}
	}
	return nil
}

// stageReader reads JSON token by token; at is where the last one begins.
type stageReader struct {
	text []byte
	dec  *json.Decoder
	at   int
	left int // how many more commands there may be
}

func (r *stageReader) fault(format string, args ...any) error {
	return &stageError{r.at, fmt.Sprintf(format, args...)}
}

// start finds where the next token begins.
func (r *stageReader) start() {
	for r.at = int(r.dec.InputOffset()); r.at < len(r.text) && strings.IndexByte(" \t\r\n,:", r.text[r.at]) >= 0; {
		r.at++
	}
}

func (r *stageReader) next() (json.Token, error) {
	r.start()
	token, err := r.dec.Token()
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		if syntax.Offset > int64(r.at) {
			r.at = min(int(syntax.Offset)-1, len(r.text))
		}
		return nil, r.fault("%v", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, r.fault("it ends too early")
	case err != nil:
		return nil, r.fault("%v", err)
	}
	return token, nil
}

func (r *stageReader) delim(want json.Delim, what, kind string) error {
	token, err := r.next()
	if err == nil && token != want {
		err = r.fault("%s: want %s", what, kind)
	}
	return err
}

// object reads an object whose keys are known, and returns those that it has.
func (r *stageReader) object(what string, fields map[string]func() error) (found []string, err error) {
	err = r.entries(what, func(key string) error {
		read, ok := fields[key]
		if !ok {
			return r.fault("%s has no key %q", what, key)
		}
		found = append(found, key)
		return read()
	})
	return found, err
}

// entries reads an object, each of whose keys is there once.
func (r *stageReader) entries(what string, entry func(key string) error) error {
	if err := r.delim('{', what, "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for r.dec.More() {
		key, err := r.string("a key")
		if err == nil && seen[key] {
			err = r.fault("%s has %q twice", what, key)
		}
		if err == nil {
			seen[key] = true
			err = entry(key)
		}
		if err != nil {
			return err
		}
	}
	return r.delim('}', what, "the end of an object")
}

func (r *stageReader) array(what string, element func() error) error {
	if err := r.delim('[', what, "an array"); err != nil {
		return err
	}
	for r.dec.More() {
		if err := element(); err != nil {
			return err
		}
	}
	return r.delim(']', what, "the end of an array")
}

func (r *stageReader) string(what string) (string, error) {
	token, err := r.next()
	if err != nil {
		return "", err
	}
	s, ok := token.(string)
	switch {
	case !ok:
		return "", r.fault("%s: want a string", what)
	case strings.ContainsRune(s, 0):
		return "", r.fault("%s has a NUL", what)
	case strings.ContainsRune(s, utf8.RuneError):
		return "", r.fault("%s has U+FFFD, or half of a surrogate pair", what)
	}
	return s, nil
}

func (r *stageReader) bool(what string) (bool, error) {
	token, err := r.next()
	if err != nil {
		return false, err
	}
	b, ok := token.(bool)
	if !ok {
		return false, r.fault("%s: want true or false", what)
	}
	return b, nil
}
