// Command work is what the benchmark of branches has done inside and outside of one: with many small files, in the working
// directory. It prints "value N", the nanoseconds of all of it but its own start, as the probe does.
//
//	work tree DIR FILES TEXT     make a tree of small files that begin with TEXT
//	work change DIR TEXT         write each file of a tree anew, as long as it was
//	work append DIR FILES        open that many files of a tree and append a line
//	work stat DIR CALLS          ask for the files of a tree in turn
//	work read DIR CALLS          open, read and close them in turn
//	work run COMMAND ARG…        run a program
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	start := time.Now()
	if err := work(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "work:", err)
		os.Exit(1)
	}
	fmt.Println("value", time.Since(start).Nanoseconds())
}

func work(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want a kind of work and its arguments, have %q", args)
	}
	kind, dir, rest := args[0], args[1], args[2:]
	switch {
	case kind == "run":
		cmd := exec.Command(dir, rest...)
		cmd.Stderr = os.Stderr
		return cmd.Run()
	case kind == "change" && len(rest) == 1:
		return each(dir, func(path string, i int) error { return write(path, i, rest[0], os.O_TRUNC) })
	case len(rest) < 1:
		return fmt.Errorf("%s: want a number", kind)
	}
	n, err := strconv.Atoi(rest[0])
	if err != nil {
		return err
	}
	switch {
	case kind == "tree" && len(rest) == 2:
		return tree(dir, n, rest[1])
	case kind == "append":
		return times(dir, n, func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("one more line\n")
			return closed(f, err)
		})
	case kind == "stat":
		return times(dir, n, func(path string) error {
			_, err := os.Lstat(path)
			return err
		})
	case kind == "read":
		var buf [maxSize + 1]byte
		return times(dir, n, func(path string) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			_, err = f.Read(buf[:])
			return closed(f, err)
		})
	}
	return fmt.Errorf("there is no work %q", args)
}

func closed(f *os.File, err error) error {
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// The tree has the shape of a folder of packages: few files in each, three levels deep, 0.5 to 4 KiB each.
const (
	perFolder = 20
	maxSize   = 4096
)

func tree(dir string, files int, text string) error {
	for i := range files {
		folder := filepath.Join(dir, fmt.Sprintf("g%d", i/(perFolder*perFolder)), fmt.Sprintf("package%d", i/perFolder))
		if i%perFolder == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
		}
		if err := write(filepath.Join(folder, fmt.Sprintf("file%d.js", i%perFolder)), i, text, os.O_CREATE|os.O_EXCL); err != nil {
			return err
		}
	}
	return nil
}

// write gives the i-th file its text.
func write(path string, i int, text string, flags int) error {
	line := fmt.Sprintf("%s %d\n", text, i)
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Repeat([]byte(line), (512+i*977%(maxSize-512))/len(line)))
	return closed(f, err)
}

// each visits the files of a tree until there is none.
func each(dir string, visit func(path string, i int) error) error {
	for i := 0; ; i++ {
		path := filepath.Join(dir, fmt.Sprintf("g%d", i/(perFolder*perFolder)), fmt.Sprintf("package%d", i/perFolder), fmt.Sprintf("file%d.js", i%perFolder))
		if _, err := os.Lstat(path); err != nil {
			if os.IsNotExist(err) && i > 0 {
				return nil
			}
			return err
		}
		if err := visit(path, i); err != nil {
			return err
		}
	}
}

// times goes through the files of a tree in turn, n in all.
func times(dir string, n int, visit func(path string) error) error {
	var paths []string
	if err := each(dir, func(path string, _ int) error {
		paths = append(paths, path)
		return nil
	}); err != nil {
		return err
	}
	for i := range n {
		if err := visit(paths[i%len(paths)]); err != nil {
			return err
		}
	}
	return nil
}
