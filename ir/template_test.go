package ir

import (
	"path"
	"slices"
	"strings"
	"testing"
)

func lookupIn(values map[string]string) Lookup {
	return func(name string) (string, bool) { v, ok := values[name]; return v, ok }
}

func TestExpand(t *testing.T) {
	lookup := lookupIn(map[string]string{"cwd": "/work", "x": "${cwd}", "empty": "", "big": strings.Repeat("b", maxExpanded)})
	for _, tc := range []struct{ template, want, err string }{
		{"", "", ""},
		{"/usr/bin", "/usr/bin", ""},
		{"${cwd}", "/work", ""},
		{"a${cwd}b${cwd}c", "a/workb/workc", ""},
		{"[${empty}]", "[]", ""},
		{"$HOME $$ $ {cwd} }", "$HOME $$ $ {cwd} }", ""},
		{"$${cwd}", "$/work", ""},
		{"${x}", "${cwd}", ""}, // a value is not expanded again
		{"${", "", `"${" without "}"`},
		{"a${cwd", "", `"${" without "}"`},
		{"${}", "", "name of 0 bytes"},
		{"${a b}", "", "not allowed"},
		{"${-a}", "", "not allowed"},
		{"${9}", "", "not allowed"},
		{"${${cwd}}", "", "not allowed"},
		{"${nobody}", "", `"nobody" has no value`},
		{"a${big}", "", "longer than 131072"},
		{"${big}${empty}", strings.Repeat("b", maxExpanded), ""},
	} {
		got, err := Expand(tc.template, lookup)
		checkResult(t, tc.template, got, err, tc.want, tc.err)
	}
}

func TestExpandPath(t *testing.T) {
	lookup := lookupIn(map[string]string{"cwd": "/work", "root": "/", "dot": ".", "up": "..", "name": "a", "empty": "", "nl": "a\nb"})
	for _, tc := range []struct{ template, want, err string }{
		{"/usr", "/usr", ""},
		{"/", "/", ""},
		{"${cwd}/x", "/work/x", ""},
		{"${root}/x", "/x", ""},
		{"${root}", "/", ""},
		{"/srv${root}", "/srv", ""},
		{"/srv/${name}.d", "/srv/a.d", ""},
		{"/srv/..${name}", "/srv/..a", ""},
		{"/srv/.${dot}/x", "", `".." element`},
		{"/srv/${up}", "", `".." element`},
		{"/srv/${dot}", "", `"." element`},
		{"/srv/${empty}", "", "empty value in a path"},
		{"${name}/x", "", "not absolute"},
		{"/srv/${nl}", "", "control character"},
		{"/" + strings.Repeat("a", MaxPath), "", "at most 4096"},
	} {
		got, err := ExpandPath(tc.template, lookup)
		checkResult(t, tc.template, got, err, tc.want, tc.err)
	}
}

func checkResult(t *testing.T, input, got string, err error, want, wantErr string) {
	t.Helper()
	if wantErr == "" && (err != nil || got != want) {
		t.Errorf("%.80q: got %.80q, %v, want %.80q", input, got, err, want)
	}
	if wantErr != "" && (err == nil || got != "" || !strings.Contains(err.Error(), wantErr)) {
		t.Errorf("%.80q: got %.80q, %v, want an error with %q", input, got, err, wantErr)
	}
}

func TestNames(t *testing.T) {
	got, err := Names("${b}/${a-1}$c${b}")
	if want := []string{"a-1", "b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("names: got %q, %v, want %q", got, err, want)
	}
	if got, err := Names("${a}${"); err == nil || got != nil {
		t.Errorf("names of an open template: got %q, %v, want an error", got, err)
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "${a}", "/x/${a}/y", "${a", "$${a}", "${a}${b}", "/.${a}"} {
		f.Add(s, "..")
	}
	f.Fuzz(func(t *testing.T, template, value string) {
		lookup := func(string) (string, bool) { return value, true }
		names, err := Names(template)
		got, expandErr := Expand(template, lookup)
		if expandErr == nil && err != nil {
			t.Fatalf("expand %q: got %q although names gave %v", template, got, err)
		}
		if err == nil && len(names) == 0 && got != template {
			t.Fatalf("expand %q without names: got %q", template, got)
		}
		if err == nil && len(names) == 1 && expandErr == nil && got != strings.ReplaceAll(template, "${"+names[0]+"}", value) {
			t.Fatalf("expand %q with %q: got %q", template, value, got)
		}
		if p, err := ExpandPath(template, lookup); err == nil {
			if !path.IsAbs(p) || path.Clean(p) != p || len(p) > MaxPath || strings.Contains(p, "\x00") {
				t.Fatalf("expand path %q with %q: got %q", template, value, p)
			}
			if slices.Contains(strings.Split(got, "/"), "..") {
				t.Fatalf("expand path %q with %q: %q climbs", template, value, got)
			}
		}
	})
}
