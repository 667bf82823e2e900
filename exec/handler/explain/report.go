package explain

import (
	"strings"
	"sync"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Denial is one thing that was refused, and how often.
type Denial struct {
	supervise.Event     // the first time
	Count           int // how often
}

// maxDenials bounds the report: a command can ask for any number of different things.
const maxDenials = 1000

// Report collects what was refused: by the kernel and the filter, as the handler observes it, and by the other handlers,
// as they record it.
type Report struct {
	mu    sync.Mutex
	list  []Denial
	index map[string]int
}

// Journal returns a journal for the other handlers: what they deny is part of the report.
func (r *Report) Journal(next supervise.Journal) supervise.Journal { return &collector{r, next} }

type collector struct {
	report *Report
	next   supervise.Journal
}

func (c *collector) Record(e supervise.Event) {
	if e.Kind == "denied" {
		c.report.add(e)
	}
	c.next.Record(e)
}

// add counts a denial and reports whether it is a new one. The caller of the denied call still waits.
func (r *Report) add(e supervise.Event) (first bool) {
	what := strings.Join([]string{e.Syscall, e.Path, e.Path2, e.Address, e.Reason}, "\x00")
	if e.HTTP != nil {
		what += "\x00" + e.HTTP.String()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, ok := r.index[what]; ok {
		r.list[i].Count++
		return false
	}
	if len(r.list) >= maxDenials {
		return false
	}
	if r.index == nil {
		r.index = map[string]int{}
	}
	r.index[what] = len(r.list)
	if e.PID > 0 && e.HTTP == nil {
		e.Command = kernel.CommandName(e.PID)
	}
	r.list = append(r.list, Denial{Event: e, Count: 1})
	return true
}

// Denials returns what was refused, in order of first occurrence.
func (r *Report) Denials() []Denial {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list
}

func rightNames(mask uint64) string { return strings.Join(abi.FSRightNames(mask), ", ") }
