package exec

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
)

// bundle is a file of certificates as the sandbox sees it.
type bundle struct {
	path    string
	read    string // where it was read: links resolved
	content []byte
}

// maxBundle bounds a file of certificates, in bytes.
const maxBundle = 16 << 20

// readBundles reads the files that the sandbox is to see with one certificate more.
func (s *sandbox) readBundles() (files []bundle, problems []string) {
	for _, f := range s.program.HTTP.InjectCA {
		path, err := ir.ExpandPath(f.Path, s.bound.lookup)
		if err == nil {
			var content []byte
			var read string
			if content, read, err = readLimitedAt(s.root, path, maxBundle); err == nil {
				if n := len(content); n > 0 && content[n-1] != '\n' {
					content = append(content, '\n')
				}
				files = append(files, bundle{path, read, content})
			}
		}
		if err != nil {
			problems = append(problems, s.fieldError(f.Origin, "http.inject_ca", err).Error())
		}
	}
	return files, problems
}

// writeCA writes the authority's certificate to where the policy wants it.
func (s *sandbox) writeCA() error {
	if s.program.HTTP.CAOut == "" {
		return nil
	}
	path, err := ir.ExpandPath(s.program.HTTP.CAOut, s.bound.lookup)
	if err != nil {
		return err
	}
	if err := s.placed(path); err != nil {
		return err
	}
	// Neither a link nor a device that somebody has put there is written to.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.Write(s.proxy.helper.CA)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
