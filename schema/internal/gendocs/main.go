// Command gendocs writes the policy reference to the file that it is given.
package main

import (
	"fmt"
	"os"

	"github.com/sandlock-go/sandlock/schema/gendoc"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments, want the file to write", len(args))
	}
	text, err := gendoc.Markdown()
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], text, 0o644)
}
