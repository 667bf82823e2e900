package cover

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestManyRules: a thousand rules that concern nothing, or one file each, cost a few milliseconds; the bound is for slow hosts.
func TestManyRules(t *testing.T) {
	dir := tree(t, "w/", "r/")
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("r/%d/f", i))
	}
	growTree(t, dir, many...)
	for _, tc := range []struct {
		name   string
		grants []Grant
		deny   func(i int) string
		guard  func(i int) string
		covers int
	}{
		{"denied beside", []Grant{{dir + "/w", true}}, func(i int) string { return fmt.Sprintf("%s/r/%d/f", dir, i) }, nil, 0},
		{"denied nowhere", []Grant{{dir + "/r", false}}, func(i int) string { return fmt.Sprintf("/none/%d", i) }, nil, 0},
		{"denied", []Grant{{dir + "/r", false}}, func(i int) string { return fmt.Sprintf("%s/r/%d/f", dir, i) }, nil, 1000},
		{"missing", []Grant{{dir + "/w", true}}, func(i int) string { return fmt.Sprintf("%s/w/%d", dir, i) }, nil, 1000},
		{"protected", []Grant{{dir + "/r", true}}, nil, func(i int) string { return fmt.Sprintf("*/**/x%d/*.y", i) }, 0},
		{"protected by ending", []Grant{{dir + "/r", true}}, nil, func(i int) string { return fmt.Sprintf("**/*.y%d", i) }, 0},
	} {
		r := Request{Grants: tc.grants}
		for i := range 1000 {
			if tc.deny != nil {
				r.Deny = append(r.Deny, Rule{Path: tc.deny(i), Name: "filesystem.deny[0]"})
			}
			if tc.guard != nil {
				r.Protect = append(r.Protect, Rule{Path: tc.guard(i), Name: "filesystem.protect[0]"})
			}
		}
		begin := time.Now()
		p, err := Make(r)
		took := time.Since(begin)
		check(t, err)
		if len(p.Covers) != tc.covers {
			t.Errorf("%s: %d covers, want %d", tc.name, len(p.Covers), tc.covers)
		}
		p.Undo()
		t.Logf("%s: %v", tc.name, took)
	}
}

// wide makes 10⁵ entries: 1000 directories of 100 files.
func wide(b *testing.B) string {
	dir := b.TempDir()
	for i := range 1000 {
		sub := fmt.Sprintf("%s/w/%d/d", dir, i/10)
		sub = filepath.Join(sub, fmt.Sprint(i%10))
		check(b, os.MkdirAll(sub, 0o755))
		for j := range 100 {
			check(b, os.WriteFile(fmt.Sprintf("%s/f%d", sub, j), nil, 0o644))
		}
	}
	check(b, os.WriteFile(dir+"/w/secret", nil, 0o600))
	return dir
}

func BenchmarkProtect(b *testing.B) {
	dir := wide(b)
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("patterns=%d", n), func(b *testing.B) {
			r := Request{Grants: []Grant{{dir + "/w", true}}}
			for i := range n {
				r.Protect = append(r.Protect, Rule{Path: fmt.Sprintf("**/x%d/*/hooks", i), Name: "filesystem.protect[0]"})
			}
			bench(b, r)
		})
	}
}

func BenchmarkAliases(b *testing.B) {
	dir := wide(b)
	check(b, os.Link(dir+"/w/secret", dir+"/elsewhere"))
	bench(b, Request{Grants: []Grant{{dir + "/w", true}}, Deny: rules("deny", dir+"/w/secret")})
}

func BenchmarkDeniedDirectory(b *testing.B) {
	dir := wide(b)
	bench(b, Request{Grants: []Grant{{dir, true}}, Deny: rules("deny", dir+"/w")})
}

func BenchmarkMissing(b *testing.B) {
	dir := b.TempDir()
	r := Request{Grants: []Grant{{dir, true}}}
	for i := range 1000 {
		r.Deny = append(r.Deny, Rule{Path: fmt.Sprintf("%s/%d", dir, i), Name: "filesystem.deny[0]"})
	}
	bench(b, r)
}

func BenchmarkDeny(b *testing.B) {
	dir := b.TempDir()
	for _, beside := range []bool{false, true} {
		b.Run(fmt.Sprintf("beside=%v", beside), func(b *testing.B) {
			r := Request{Grants: []Grant{{dir, false}}}
			for i := range 1000 {
				name := fmt.Sprintf("%s/%d", dir, i)
				check(b, os.WriteFile(name, nil, 0o644))
				r.Deny = append(r.Deny, Rule{Path: name, Name: "filesystem.deny[0]"})
			}
			if beside {
				r.Grants[0].Path = "/none"
			}
			bench(b, r)
		})
	}
}

func bench(b *testing.B, r Request) {
	b.Helper()
	for b.Loop() {
		p, err := Make(r)
		check(b, err)
		p.Undo()
	}
}
