package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	size := func(i int, name string) int64 {
		t.Helper()
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		return info.Size()
	}
	do := func(args ...string) {
		t.Helper()
		if err := work(args); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
	}
	const last = "g1/package20/file1.js" // of 402
	do("tree", dir, "402", "text")
	first, end := size(0, "g0/package0/file0.js"), size(401, last)
	if _, err := os.Stat(filepath.Join(dir, "g1/package20/file2.js")); !os.IsNotExist(err) {
		t.Errorf("there are more files than asked for: %v", err)
	}
	if first < 400 || first > maxSize || end == first {
		t.Errorf("files have %d and %d bytes", first, end)
	}
	do("change", dir, "TEXT")
	if got := size(401, last); got != end {
		t.Errorf("changed: %d bytes, want %d", got, end)
	}
	do("append", dir, "402")
	if got := size(401, last); got <= end {
		t.Errorf("appended: %d bytes, had %d", got, end)
	}
	do("stat", dir, "1000")
	do("read", dir, "1000")
	do("run", "true")
	for _, wrong := range [][]string{{}, {"tree", dir}, {"tree", dir, "x", "y"}, {"walk", dir, "1"}, {"run", "false"}, {"stat", dir + "/nothing", "1"}} {
		if err := work(wrong); err == nil {
			t.Errorf("%q succeeds", wrong)
		}
	}
}
