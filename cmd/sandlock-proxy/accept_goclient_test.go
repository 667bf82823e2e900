package main_test

import (
	"fmt"
	"os"
	"testing"
)

// goClientArg makes this test program a client.
const goClientArg = "go-client"

func goClient(args []string) int {
	fmt.Fprintln(os.Stderr, "unknown", args)
	return 2
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}
