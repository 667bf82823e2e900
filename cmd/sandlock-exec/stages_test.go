package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseStages(t *testing.T) {
	text := ` {"stages": [
		{"cwd": "/w", "artifact": "a.sbx", "argv": ["x", "", "é\n\u00e9"], "params": {"p": "1", "q": ""}, "name": "first"},
		{"artifact": "b.sbx"}, {"artifact": "c.sbx", "argv": [], "params": {}}
	]} `
	want := []stageSpec{
		{name: "first", artifact: "a.sbx", argv: []string{"x", "", "é\né"}, params: map[string]string{"p": "1", "q": ""}, cwd: "/w"},
		{artifact: "b.sbx"}, {artifact: "c.sbx", params: map[string]string{}},
	}
	if got, err := parseStages([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	text = `{"stages": [{"name": "g", "optional": true, "stages": [{"artifact": "a"}, {"parallel": [{"artifact": "b"}, {"artifact": "c"}]}]}, {"parallel": [{"artifact": "d"}], "optional": false}]}`
	want = []stageSpec{
		{name: "g", optional: true, stages: []stageSpec{{artifact: "a"}, {parallel: []stageSpec{{artifact: "b"}, {artifact: "c"}}}}},
		{parallel: []stageSpec{{artifact: "d"}}},
	}
	if got, err := parseStages([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	many := strings.TrimSuffix(strings.Repeat(`{"artifact":"a"},`, maxStages), ",")
	if got, err := parseStages([]byte(`{"stages":[` + many + `]}`)); err != nil || len(got) != maxStages {
		t.Errorf("%d stages, %v", len(got), err)
	}
	for text, want := range map[string]string{
		``:                                    "byte 0: it ends too early",
		`[]`:                                  "byte 0: the file: want an object",
		`{`:                                   "byte 1: it ends too early",
		`{}`:                                  `byte 1: it has no "stages"`,
		`{"stages":[]} x`:                     "byte 14: something follows the end",
		`{"stages":[]}{}`:                     "byte 13: something follows the end",
		`{"stages":{}}`:                       "byte 10: stages: want an array",
		`{"stages":[1]}`:                      "byte 11: a stage: want an object",
		`{"stages":[{}]}`:                     `byte 11: a stage has no "artifact"`,
		`{"stages":[], "x": 1}`:               `byte 14: the file has no key "x"`,
		`{"stages":[],"stages":[]}`:           `byte 13: the file has "stages" twice`,
		`{"stages":[{"Artifact":"a"}]}`:       `byte 12: a stage has no key "Artifact"`,
		`{"stages":[{"artifact":""}]}`:        "byte 23: artifact is empty",
		`{"stages":[{"artifact":null}]}`:      "byte 23: artifact: want a string",
		`{"stages":[{"artifact":"a\u0000"}]}`: "byte 23: artifact has a NUL",
		`{"stages":[{"artifact":"a","argv":["\ud800"]}]}`:             "byte 35: an element of argv has U+FFFD, or half of a surrogate pair",
		`{"stages":[{"artifact":"a","argv":"ls"}]}`:                   "byte 34: argv: want an array",
		`{"stages":[{"artifact":"a","argv":[["ls"]]}]}`:               "byte 35: an element of argv: want a string",
		`{"stages":[{"artifact":"a","params":{"p":1}}]}`:              "byte 41: a parameter's value: want a string",
		`{"stages":[{"artifact":"a","params":{"p":"1","p":"2"}}]}`:    `byte 45: params has "p" twice`,
		`{"stages":[{"artifact":"a",}]}`:                              "byte 27: invalid character '}' ",
		`{"stages":[{"artifact":"a"} {"artifact":"b"}]}`:              "byte 28: invalid character '{' ",
		`{"stages":[{"artifact" "a"}]}`:                               "byte 23: invalid character '\"' ",
		"{\"stages\":[{\"artifact\":\"\xff\"}]}":                      "byte 0: is no UTF-8 text",
		`{"stages":[` + many + `,{"artifact":"a"}]}`:                  "there are more than 64 stages",
		`{"stages":[{"parallel":[` + many + `]},{"artifact":"a"}]}`:   "there are more than 64 stages",
		`{"stages":[{"stages":[{"stages":[]}]}]}`:                     `byte 23: a stage in a group has no key "stages"`,
		`{"stages":[{"parallel":[{"parallel":[]}]}]}`:                 `byte 25: a stage that runs beside others has no key "parallel"`,
		`{"stages":[{"stages":[{"optional":true}]}]}`:                 `byte 23: a stage in a group has no key "optional"`,
		`{"stages":[{"stages":[]}]}`:                                  "stages is empty",
		`{"stages":[{"artifact":"a","optional":1}]}`:                  "byte 38: optional: want true or false",
		`{"stages":[{"stages":[{"artifact":"a"}],"parallel":[]}]}`:    "parallel is empty",
		`{"stages":[{"parallel":[{"artifact":"a"}],"cwd":"/"}]}`:      `a group has no "cwd": its stages have`,
		strings.Repeat("[", 100000):                                   "byte 0: the file: want an object",
		`{"stages":[{"artifact":` + strings.Repeat("[", 100000) + `}`: "byte 23: artifact: want a string",
	} {
		_, err := parseStages([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
	if _, err := readStages("-", strings.NewReader(strings.Repeat(" ", maxStageFile+1))); err == nil || !strings.Contains(err.Error(), "is longer than") {
		t.Errorf("a long file: %v", err)
	}
	if _, err := readStages("-", strings.NewReader("{\n \"stages\": 1}")); err == nil || err.Error() != "standard input:2:12: stages: want an array" {
		t.Errorf("place of a mistake: %v", err)
	}
}

// What is taken is JSON that says the same to package json, and mistakes have a place in the text.
func FuzzParseStages(f *testing.F) {
	for _, text := range []string{
		`{"stages": [{"name": "a", "artifact": "a.sbx", "argv": ["x", "y"], "params": {"p": "v"}, "cwd": "/"}, {"artifact": "b"}]}`,
		`{"stages":[{"artifact":"a\u0041\n"}]}`, `{"stages":[{"artifact":"a",}]}`, `{"stages":[]}}`, `{"STAGES":[]}`, "{\"stages\":[{\"artifact\":\"\xff\"}]}", `{,"stages":[]}`, `{"stages":[,]}`, `{"stages":[{"artifact":"\ud83d\ude00"}]}`,
		`{"stages": [{"optional": true, "stages": [{"artifact": "a"}, {"parallel": [{"artifact": "b"}, {"artifact": "c"}]}]}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		stages, err := parseStages(text)
		if err != nil {
			var at *stageError
			if !errors.As(err, &at) || at.offset < 0 || at.offset > len(text) || at.what == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		var same struct{ Stages []plainStage }
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&same); err != nil || !json.Valid(text) {
			t.Fatalf("%q is taken, package json says %v", text, err)
		}
		if n := sameStages(t, stages, same.Stages); n > maxStages {
			t.Fatalf("%q: %d stages", text, n)
		}
	})
}

// plainStage is a stage as package json reads it.
type plainStage struct {
	Name, Artifact, Cwd string
	Argv                []string
	Params              map[string]string
	Optional            bool
	Parallel, Stages    []plainStage
}

// sameStages compares what was read with what package json reads, and counts the commands.
func sameStages(t *testing.T, stages []stageSpec, plain []plainStage) (commands int) {
	if len(stages) != len(plain) {
		t.Fatalf("%d stages, package json has %d", len(stages), len(plain))
	}
	for i, s := range stages {
		want := plain[i]
		if len(s.argv) != len(want.Argv) || s.name != want.Name || s.artifact != want.Artifact || s.cwd != want.Cwd || len(s.params) != len(want.Params) || s.optional != want.Optional {
			t.Fatalf("stage %d is %+v, package json has %+v", i, s, want)
		}
		for j, arg := range s.argv {
			if arg != want.Argv[j] || !utf8.ValidString(arg) || strings.ContainsRune(arg, 0) {
				t.Fatalf("stage %d has the argument %q", i, arg)
			}
		}
		for key, value := range s.params {
			if want.Params[key] != value {
				t.Fatalf("stage %d has %q = %q", i, key, value)
			}
		}
		n := sameStages(t, s.parallel, want.Parallel) + sameStages(t, s.stages, want.Stages)
		if (n == 0) == (s.artifact == "") {
			t.Fatalf("stage %d is both a command and a group, or neither: %+v", i, s)
		}
		commands += max(n, 1)
	}
	return commands
}
