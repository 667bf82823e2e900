// Package audit writes what happens in a sandbox as JSON lines.
//
// In: events of the supervisor and of the sandbox's life. Out: one line each, schema version 1, never holding file
// contents, environment values or secrets. Writing never blocks a decision for long and never fails a sandbox: what
// could not be written is counted and said in the next line that can be.
//
// The fields of version 1 are documented in docs/audit.md; a field's meaning never changes within a version.
package audit

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/sandlock-go/sandlock/exec/supervise"
)

// Version is the version of the line format.
const Version = 1

// Line is one line of the stream.
type Line struct {
	Version  int    `json:"v"`
	Time     string `json:"time"` // RFC 3339 with nanoseconds, UTC
	Artifact string `json:"artifact"`
	Policy   string `json:"policy"`
	Event    string `json:"event"` // start, held, denied, request, warning, limit, observed, error, timeout, exit, suppressed

	PID     int    `json:"pid,omitempty"`
	Parent  int    `json:"parent,omitempty"`
	Command string `json:"command,omitempty"`
	Syscall string `json:"syscall,omitempty"`
	Path    string `json:"path,omitempty"`
	Path2   string `json:"path2,omitempty"`
	Address string `json:"address,omitempty"`
	Verdict string `json:"verdict,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Origin  string `json:"origin,omitempty"`

	HTTP *supervise.HTTP `json:"http,omitempty"`

	Argv     []string `json:"argv,omitempty"`
	Code     *int     `json:"code,omitempty"`
	Millis   *int64   `json:"duration_ms,omitempty"`
	Count    int      `json:"count,omitempty"` // events that "suppressed" stands for
	Detached int      `json:"killed_descendants,omitempty"`
}

// Log is an audit stream. A nil *Log discards everything. It is safe for use by several goroutines.
type Log struct {
	mu       sync.Mutex
	w        io.Writer
	artifact string
	policy   string
	now      func() time.Time

	window     time.Time
	inWindow   int
	suppressed int
}

// maxPerSecond keeps a command that is refused in a tight loop from filling the disk.
const maxPerSecond = 1000

// New starts a stream on w for an artifact (its digest) and policy name.
func New(w io.Writer, artifact, policy string) *Log {
	return &Log{w: w, artifact: artifact, policy: policy, now: time.Now}
}

// Record writes an event of the supervisor.
func (l *Log) Record(e supervise.Event) {
	l.Write(Line{
		Event: e.Kind, PID: e.PID, Command: e.Command, Syscall: e.Syscall, Path: e.Path, Address: e.Address,
		Verdict: e.Verdict, Reason: e.Reason, Rule: e.Rule, Origin: e.Origin, Path2: e.Path2, Argv: e.Argv, Parent: e.Parent, HTTP: e.HTTP,
	})
}

// Write completes a line and writes it.
func (l *Log) Write(line Line) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if now.Sub(l.window) >= time.Second {
		l.window, l.inWindow = now, 0
	}
	l.inWindow++
	life := line.Event == "start" || line.Event == "exit" || line.Event == "timeout"
	if l.inWindow > maxPerSecond && !life {
		l.suppressed++
		return
	}
	if l.suppressed > 0 {
		n := l.suppressed
		l.suppressed = 0
		l.put(now, Line{Event: "suppressed", Count: n, Reason: "more events than the stream takes in a second"})
	}
	l.put(now, line)
}

func (l *Log) put(now time.Time, line Line) {
	line.Version, line.Artifact, line.Policy = Version, l.artifact, l.policy
	line.Time = now.UTC().Format(time.RFC3339Nano)
	b, err := json.Marshal(line)
	if err != nil {
		l.suppressed++
		return
	}
	if _, err := l.w.Write(append(b, '\n')); err != nil {
		l.suppressed++
	}
}
