package load

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/diag"
)

// LockFile returns the name of a policy's lock file (see compiler/lock), and the same as messages and origins have it:
// beside the first file, and called as that but for the ending .hosts; for the package of a directory policy.hosts in it.
func LockFile(opts Options) (name, shown string, err error) {
	dir, root, err := opts.directories()
	if err != nil {
		return "", "", err
	}
	name = filepath.Join(dir, "policy.hosts")
	if len(opts.Args) > 0 {
		switch arg := opts.Args[0]; {
		case arg == "-":
			return "", "", errors.New("a policy from standard input has no lock file")
		case isFile(arg):
			base, err := filepath.Abs(opts.Dir)
			if err != nil {
				return "", "", err
			}
			name = strings.TrimSuffix(inDir(base, arg), ".cue") + ".hosts"
		case !isDirectory(arg):
			return "", "", errors.New("the lock file of a package lies in its directory: name that instead of the package")
		}
	}
	return name, names{root: root}.file(name).File, nil
}

// ReadLock reads a policy's lock file. One that is not there is empty.
func ReadLock(opts Options) (shown string, data []byte, diags diag.List) {
	name, shown, err := LockFile(opts)
	if err != nil {
		return "", nil, failure("lock", "%v", err)
	}
	if err := checkFile(name); err != nil {
		if _, lost := os.Lstat(name); errors.Is(lost, fs.ErrNotExist) {
			return shown, nil, nil
		}
		return "", nil, failure("lock", "%s: %v", shown, err)
	}
	data, err = readFile(name)
	switch {
	case err != nil:
		return "", nil, failure("lock", "read %s: %v", shown, errors.Unwrap(err))
	case len(data) > maxFile:
		return "", nil, failure("lock", "%s is larger than %d bytes", shown, maxFile)
	}
	return shown, data, nil
}
