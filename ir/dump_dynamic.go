package ir

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// dynamicRules lists the rules in the order in which they are looked at.
func (d *dumper) dynamicRules() {
	if len(d.p.Rules) == 0 {
		return
	}
	d.section("rules  looked at in this order before a held call; they can only narrow")
	var rows []row
	for i := range d.p.Rules {
		r := &d.p.Rules[i]
		cells := []string{
			strconv.Itoa(i), "on " + strings.Join(r.On.Names(), ","), r.conditions(), r.Then.String(), strings.Join(r.changes(), ", "), r.Scope.text(), "",
		}
		if r.Reason != "" {
			cells[6] = "# " + r.Reason
		}
		rows = append(rows, row{cells: cells, origin: r.Origin})
	}
	d.rows(rows)
}

func (r *DynamicRule) conditions() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if r.Argv != "" {
		add("argv contains %s", strconv.Quote(r.Argv))
	}
	if r.Exe != "" {
		add("exe %s", r.Exe)
	}
	if r.Path != "" {
		add("path %s", r.Path)
	}
	if r.Protocol != 0 {
		add("protocol %s", r.Protocol)
	}
	if r.Host != "" {
		add("host %s", r.host())
	}
	if r.Port != 0 {
		add("port %d", r.Port)
	}
	if r.AfterExec {
		add("after exec")
	}
	if r.Count > 1 {
		add("from number %d on", r.Count)
	}
	if len(parts) == 0 {
		return "always"
	}
	return "if " + strings.Join(parts, " and ")
}

// host writes an address without its length.
func (r *DynamicRule) host() string {
	if prefix, err := netip.ParsePrefix(r.Host); err == nil && prefix.IsSingleIP() {
		return prefix.Addr().String()
	}
	return r.Host
}

func (r *DynamicRule) changes() []string {
	var list []string
	for _, c := range r.Do {
		list = append(list, c.String())
	}
	return list
}

func (s RuleScope) text() string {
	if s == ScopeProcess {
		return "for the process and its descendants"
	}
	return ""
}

// String writes the outcome as goldens do.
func (o Outcome) String() string {
	switch o.Kind {
	case OutcomeAllow:
		return "allow"
	case OutcomeAudit:
		return "audit"
	case OutcomeErrno:
		return "deny " + errnoText(o.Errno)
	case OutcomeKill:
		return "kill"
	}
	return "go on"
}

func errnoText(n uint16) string {
	if name, ok := abi.ErrnoName(abi.Errno(n)); ok {
		return name
	}
	return strconv.Itoa(int(n))
}

// String writes the change as policies do.
func (c Change) String() string {
	switch c.Kind {
	case ChangeProcesses:
		return "restrict_processes " + strconv.FormatUint(c.Value, 10)
	case ChangeMemory:
		return "restrict_memory " + sizeText(c.Value)
	case ChangeNetwork:
		var list []string
		for i := range c.Net {
			list = append(list, c.Net[i].Describe())
		}
		return "restrict_network to " + cmp.Or(strings.Join(list, "; "), "nothing")
	}
	return "deny_path " + c.Path
}

type ruleView struct {
	On        []string `json:"on"`
	Argv      string   `json:"argv_contains,omitempty"`
	Exe       string   `json:"exe,omitempty"`
	Path      string   `json:"path,omitempty"`
	Host      string   `json:"host,omitempty"`
	Port      uint16   `json:"port,omitempty"`
	Protocol  string   `json:"protocol,omitempty"`
	AfterExec bool     `json:"after_exec,omitempty"`
	Count     uint32   `json:"count,omitempty"`
	Then      string   `json:"then"`
	Do        []string `json:"do,omitempty"`
	Scope     string   `json:"scope"`
	Reason    string   `json:"reason,omitempty"`
	Origin    string   `json:"origin,omitempty"`
}

func (p *Program) rulesView() []ruleView {
	views := []ruleView{}
	for i := range p.Rules {
		r := &p.Rules[i]
		scope := "sandbox"
		if r.Scope == ScopeProcess {
			scope = "process"
		}
		views = append(views, ruleView{
			r.On.Names(), r.Argv, r.Exe, r.Path, r.host(), r.Port, r.Protocol.String(), r.AfterExec, r.Count, r.Then.String(), r.changes(), scope, r.Reason, p.at(r.Origin),
		})
	}
	return views
}
