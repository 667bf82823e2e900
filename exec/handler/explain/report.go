package explain

import (
	"strings"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Denial is one thing that was refused, and how often.
type Denial struct {
	What    string
	Verdict string
	Why     string
	Rule    string
	Count   int
}

// maxDenials bounds the report: a command can ask for any number of different things.
const maxDenials = 1000

type report struct {
	list  []Denial
	index map[string]int
}

// add counts a denial and reports whether it is a new one.
func (r *report) add(what string, e supervise.Event) (first bool) {
	if r.index == nil {
		r.index = map[string]int{}
	}
	if i, ok := r.index[what]; ok {
		r.list[i].Count++
		return false
	}
	if len(r.list) >= maxDenials {
		return false
	}
	r.index[what] = len(r.list)
	rule := e.Rule
	if e.Origin != "" {
		rule += " (" + e.Origin + ")"
	}
	r.list = append(r.list, Denial{What: what, Verdict: e.Verdict, Why: e.Reason, Rule: rule, Count: 1})
	return true
}

func rightNames(mask uint64) string { return strings.Join(abi.FSRightNames(mask), ", ") }
