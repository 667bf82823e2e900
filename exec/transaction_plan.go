package exec

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
)

// step is an element of a transaction's stages, as it is run: what it does is kept or dropped as a whole.
type step struct {
	*Stage
	first, count int    // of its commands, among all of the transaction's
	parts        []part // run one after the other
}

// part is commands that run side by side; mostly it is one.
type part struct{ first, count int }

// command is a stage that is one, at its place.
type command struct {
	*Stage
	group string // name of the group that it is in, if that has one
}

// plan puts the stages in their order. The problems are what is wrong with their shape.
func (t *Transaction) plan() (problems []string) {
	t.steps, t.commands = nil, nil
	for i := range t.Stages {
		s := &t.Stages[i]
		top := step{Stage: s, first: len(t.commands)}
		parts := []Stage{*s}
		if s.Stages != nil {
			parts = s.Stages
		}
		if wrong := s.misshapen(); wrong != "" {
			t.commands = append(t.commands, command{Stage: s}) // for the numbers of those after it
			problems = append(problems, t.label(top.first)+wrong)
			continue
		}
		group := ""
		if s.Cmd == nil {
			group = s.Name
		}
		for j := range parts {
			top.parts = append(top.parts, t.planPart(&parts[j], group))
		}
		top.count = len(t.commands) - top.first
		t.steps = append(t.steps, top)
	}
	return problems
}

func (t *Transaction) planPart(s *Stage, group string) part {
	p := part{first: len(t.commands), count: 1}
	if s.Parallel == nil {
		t.commands = append(t.commands, command{s, group})
		return p
	}
	p.count = len(s.Parallel)
	for i := range s.Parallel {
		t.commands = append(t.commands, command{&s.Parallel[i], cmp.Or(s.Name, group)})
	}
	return p
}

// misshapen says why an element of a transaction can be none.
func (s *Stage) misshapen() string {
	kinds := 0
	for _, is := range []bool{s.Cmd != nil, s.Parallel != nil, s.Stages != nil} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		return "it has no command"
	case kinds > 1:
		return "it is more than one of a command, stages that run side by side, and stages in their order"
	}
	for i := range s.Stages {
		in := &s.Stages[i]
		wrong := in.misshapen()
		switch {
		case in.Stages != nil:
			wrong = "a group of stages has another one in it"
		case in.Optional:
			wrong = "a stage in a group is optional: the group can be, its stages cannot"
		}
		if wrong != "" {
			return wrong
		}
	}
	for i := range s.Parallel {
		switch in := &s.Parallel[i]; {
		case in.Cmd == nil || in.Parallel != nil || in.Stages != nil:
			return "what runs side by side must be commands"
		case in.Optional:
			return "a stage that runs beside others is optional: the group can be, its stages cannot"
		}
	}
	if s.Cmd == nil && len(s.Parallel)+len(s.Stages) == 0 {
		return "its group is empty"
	}
	return ""
}

// label names a command in errors; -1 is none.
func (t *Transaction) label(i int) string {
	if i < 0 {
		return ""
	}
	s := t.commands[i]
	name := s.Name
	if name == "" && s.Cmd != nil && len(s.args) > 0 {
		name = filepath.Base(s.args[0])
	}
	if s.group != "" {
		name = strings.TrimSuffix(s.group+": "+name, ": ")
	}
	if name == "" {
		return fmt.Sprintf("stage %d: ", i+1)
	}
	return fmt.Sprintf("stage %d (%s): ", i+1, printable(name))
}
