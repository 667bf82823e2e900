package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/supervise"
)

func TestLinesAreCompleteJSON(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, "sha256:00", "p")
	l.now = func() time.Time { return time.Unix(1, 5).UTC() }
	l.Record(supervise.Event{Kind: "denied", PID: 7, Syscall: "chmod", Path: "/a\xffb\n", Verdict: "EACCES"})
	var got Line
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("line %q: %v", out.String(), err)
	}
	if got.Version != Version || got.Artifact != "sha256:00" || got.Time != "1970-01-01T00:00:01.000000005Z" || got.Event != "denied" {
		t.Errorf("got %+v", got)
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("a path with a newline broke the line: %q", out.String())
	}
}

func TestFloodIsCountedNotDropped(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, "", "")
	now := time.Unix(100, 0)
	l.now = func() time.Time { return now }
	for range maxPerSecond + 50 {
		l.Record(supervise.Event{Kind: "denied"})
	}
	if got := strings.Count(out.String(), "\n"); got != maxPerSecond {
		t.Errorf("lines in one second = %d, want %d", got, maxPerSecond)
	}
	now = now.Add(time.Second)
	out.Reset()
	l.Write(Line{Event: "exit"})
	if !strings.Contains(out.String(), `"event":"suppressed"`) || !strings.Contains(out.String(), `"count":50`) {
		t.Errorf("after a flood: %s", out.String())
	}
	var none *Log
	none.Write(Line{}) // must not panic
}
