package diag

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/policy"
)

var portError = Diagnostic{
	Pos:  policy.Place{File: "policies/agent.cue", Line: 14, Col: 9},
	Path: "network.allow[2].port",
	Msg:  "70000 is above 65535",
	Rule: "port-range",
	Also: []Note{{Pos: policy.Place{File: "policies/base.cue", Line: 3, Col: 2}, Text: "declared at"}},
	Hint: "a port is 1–65535; leave it out to mean every port",
}

func TestText(t *testing.T) {
	want := "policies/agent.cue:14:9: network.allow[2].port: 70000 is above 65535 [port-range]\n" +
		"\tdeclared at policies/base.cue:3:2\n" +
		"\thint: a port is 1–65535; leave it out to mean every port"
	if got := portError.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	forged := Diagnostic{Msg: "a\nb:1:1: limits: all is well\x1b[2J", Rule: "x"}
	if got, want := forged.String(), "a b:1:1: limits: all is well\ufffd[2J [x]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestListSortsAndDeduplicates(t *testing.T) {
	at := func(file string, line int, msg string) Diagnostic {
		return Diagnostic{Pos: policy.Place{File: file, Line: line, Col: 1}, Msg: msg}
	}
	list := List{at("b.cue", 1, "four"), at("a.cue", 10, "three"), at("a.cue", 2, "one"), at("a.cue", 10, "three"), at("a.cue", 2, "two")}
	want := "a.cue:2:1: one\na.cue:2:1: two\na.cue:10:1: three\nb.cue:1:1: four\n"
	if got := list.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	var e *Error
	if err := list.Err(); !errors.As(err, &e) || len(e.List) != 4 {
		t.Errorf("Err: got %v, want an *Error of 4", err)
	}
	if err := (List{}).Err(); err != nil {
		t.Errorf("Err of an empty list: got %v, want nil", err)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := (List{portError}).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0]["file"] != "policies/agent.cue" || got[0]["line"] != 14.0 || got[0]["rule"] != "port-range" {
		t.Errorf("got %s", b.Bytes())
	}
	b.Reset()
	if err := (List(nil)).WriteJSON(&b); err != nil || b.String() != "[]\n" {
		t.Errorf("empty list: got %q, %v, want []", b.String(), err)
	}
}
