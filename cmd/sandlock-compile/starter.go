package main

import (
	_ "embed"
	"errors"
	"os"
)

//go:embed starter.cue
var starter []byte

// createNew writes a file that is not there yet.
func createNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return pathError(err)
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
