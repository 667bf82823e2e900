package load

import (
	"fmt"
	"strings"

	"cuelang.org/go/cue"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir/abi"
)

func syscalls(n node) policy.Syscalls {
	s := policy.Syscalls{
		ExtraAllow: list(n.at("extra_allow"), word),
		ExtraDeny:  list(n.at("extra_deny"), word),
		Args:       list(n.at("args"), elements("SyscallArg", syscallArg)),
		OnDeny:     word(n.at("on_deny")),
	}
	refuseDuplicates(n.d, s.ExtraAllow)
	refuseDuplicates(n.d, s.ExtraDeny)
	return s
}

func syscallArg(n node) policy.SyscallArg {
	return policy.SyscallArg{
		Syscall: word(n.at("syscall")),
		Arg:     number[int](n.at("arg")),
		Op:      word(n.at("op")),
		Value:   number[uint64](n.at("value")),
		Then:    word(n.at("then")),
	}
}

func dynamicRule(n node) policy.DynamicRule {
	r := policy.DynamicRule{
		On:     list(n.at("on"), word),
		If:     structOf(n.at("if"), condition),
		Then:   outcome(n.at("then")),
		Do:     list(n.at("do"), elements("Do", change)),
		Scope:  word(n.at("scope")),
		Reason: text(n.at("reason"), policy.ParseLine),
	}
	refuseDuplicates(n.d, r.On)
	if !r.Then.Action.Set && len(r.Do.Items) == 0 && !n.d.partial {
		_, o, _, _ := n.readContainer()
		n.d.fail(o, &policy.GrammarError{Rule: "exactly-one", Msg: "does nothing: it has neither then nor do"})
	}
	return r
}

func condition(n node) policy.RuleCondition {
	return policy.RuleCondition{
		ArgvContains: word(n.at("argv_contains")),
		Exe:          path(n.at("exe")),
		Host:         text(n.at("host"), policy.ParseDestination),
		Port:         number[uint16](n.at("port")),
		Path:         text(n.at("path"), policy.ParseGlob),
		Protocol:     word(n.at("protocol")),
		After:        word(n.at("after")),
		Count:        number[uint32](n.at("count")),
	}
}

func outcome(n node) policy.RuleOutcome {
	if n.kind() == cue.StructKind {
		return policy.RuleOutcome{Action: fixed(n, "errno"), Errno: text(n.at("errno"), parseErrno)}
	}
	return policy.RuleOutcome{Action: word(n), Errno: policy.Val[string]{Origin: absent(n.path + ".errno")}}
}

func parseErrno(s string) (string, error) {
	if _, ok := abi.ErrnoByName(s); !ok {
		return "", &policy.GrammarError{Rule: "errno", Msg: fmt.Sprintf("%q is not an error's name", s), Hint: "see errno(3)"}
	}
	return s, nil
}

func change(n node) policy.RuleDo {
	n.exactlyOne("restrict_network", "restrict_memory", "restrict_processes", "deny_path")
	return policy.RuleDo{
		RestrictNetwork:   list(n.at("restrict_network"), netRule),
		RestrictMemory:    positive(n.at("restrict_memory")),
		RestrictProcesses: number[uint32](n.at("restrict_processes")),
		DenyPath:          path(n.at("deny_path")),
	}
}

// exactlyOne refuses a struct that has none or several of the named fields.
func (n node) exactlyOne(names ...string) {
	var have []string
	for _, name := range names {
		if n.at(name).present() {
			have = append(have, name)
		}
	}
	if len(have) == 1 || n.kind() != cue.StructKind {
		return
	}
	_, o, _, _ := n.readContainer()
	msg := "has none of " + strings.Join(names, ", ")
	if len(have) > 1 {
		msg = "has " + strings.Join(have, " and ") + ", exactly one is allowed"
	}
	n.d.fail(o, &policy.GrammarError{Rule: "exactly-one", Msg: msg})
}

func test(n node) policy.Test {
	return policy.Test{Name: text(n.at("name"), policy.ParseLine), Expect: word(n.at("expect")), Case: structOf(n.at("case"), testCase)}
}

func testCase(n node) policy.TestCase {
	if n.present() {
		n.exactlyOne("open", "connect", "bind", "http", "syscall")
	}
	args := list(n.at("args"), number[uint64])
	if len(args.Items) > 6 {
		n.d.fail(args.Origin, &policy.GrammarError{Rule: "list-size", Msg: "a system call has at most six arguments"})
	}
	return policy.TestCase{
		Open:    path(n.at("open")),
		For:     word(n.at("for")),
		Connect: text(n.at("connect"), checkedBy(policy.ParseConnect)),
		Bind:    text(n.at("bind"), checkedBy(policy.ParseBindEndpoint)),
		HTTP:    text(n.at("http"), policy.ParseHTTPRequest),
		Syscall: word(n.at("syscall")),
		Args:    args,
	}
}

// checkedBy keeps a text that a parser accepts.
func checkedBy[T any](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		_, err := parse(s)
		return s, err
	}
}
