package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// write writes a result to a file, or for "-" to standard output.
func (s *streams) write(name string, b []byte) error {
	if name == "-" {
		_, err := s.out.Write(b)
		return err
	}
	if err := replace(name, b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// replace writes a file whole or not at all: a reader never sees half of it, and a failure leaves the old one.
func replace(name string, b []byte) error {
	switch info, err := os.Stat(name); {
	case err == nil && info.IsDir():
		return errors.New("is a directory")
	case err == nil && !info.Mode().IsRegular():
		return errors.New("is not a regular file (use - for standard output)")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return cause(err)
	}
	f, err := createBeside(name)
	if err != nil {
		return cause(err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return cause(err)
}

// createBeside makes a new file in the directory of name, with the permissions that a new file gets (os.CreateTemp
// would make it private, and the rename would keep that).
func createBeside(name string) (*os.File, error) {
	dir, base := filepath.Split(name)
	for i := 0; ; i++ {
		temp := filepath.Join(dir, "."+base+"."+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(i))
		f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) || i > 100 {
			return f, err
		}
	}
}

// cause takes a file's name out of an error that will be printed beside another name.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// sameFile tells whether two names lead to one file.
func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}
