// Command lookup resolves a name by Go's own resolver and prints its addresses in order, one a line: for tests of what a Go
// program in a sandbox sees. It must be built without C.
package main

import (
	"fmt"
	"net"
	"os"
	"slices"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: lookup NAME")
		os.Exit(2)
	}
	list, err := net.LookupHost(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "lookup:", err)
		os.Exit(1)
	}
	slices.Sort(list)
	for _, a := range list {
		fmt.Println(a)
	}
}
