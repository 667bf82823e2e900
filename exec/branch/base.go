package branch

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// baseName is the directory of branches in what $XDG_RUNTIME_DIR or $TMPDIR name. It holds no process id: another process of
// the same user finds what this one left.
const baseName = "sandlock-cow"

// Base returns the directory that holds branch directories, and makes it where it is missing. A given one is checked alike.
// Without one it is $XDG_RUNTIME_DIR/sandlock-cow, else $TMPDIR/sandlock-cow-<uid> (/tmp without TMPDIR); the former only
// where the real and the effective user are one, or else a setuid process would keep another user's files there. Note that
// the former is mostly a small file system that ends with the user's last session: services should name a base.
//
// A base is a directory, no symbolic link, of this user, which nobody else has any permission on.
func Base(given string) (string, error) {
	if given != "" {
		abs, err := filepath.Abs(given)
		if err != nil {
			return "", fmt.Errorf("storage base %q: %w", given, err)
		}
		return abs, checkBase(abs)
	}
	runtime, temporary := defaults(os.Getenv("XDG_RUNTIME_DIR"), os.Getenv("TMPDIR"))
	if runtime != "" && os.Getuid() == os.Geteuid() && checkBase(runtime) == nil {
		return runtime, nil
	}
	return temporary, checkBase(temporary)
}

// defaults are the bases in what the environment names; the first is "" without a directory for it.
func defaults(runtime, temporary string) (string, string) {
	if filepath.IsAbs(runtime) {
		runtime = filepath.Join(runtime, baseName)
	} else {
		runtime = ""
	}
	if !filepath.IsAbs(temporary) {
		temporary = "/tmp"
	}
	return runtime, filepath.Join(temporary, baseName+"-"+strconv.Itoa(os.Geteuid()))
}

// Bases returns the default bases that are there. A run took one of them, as its environment was; without $XDG_RUNTIME_DIR, as
// in a service, that of a login session (/run/user/<uid>) is looked at all the same.
func Bases() (bases []string) {
	runtime, temporary := defaults(cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), "/run/user/"+strconv.Itoa(os.Geteuid())), os.Getenv("TMPDIR"))
	for _, base := range []string{runtime, temporary} {
		if base == "" {
			continue
		}
		if fd, err := openBase(base); err == nil {
			unix.Close(fd)
			bases = append(bases, base)
		}
	}
	return bases
}

// checkBase makes a base, but no directory above it: to make those would follow whatever somebody put there.
func checkBase(base string) error {
	err := unix.Mkdir(base, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create storage base %q: %w", base, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(base, &st); err != nil {
		return fmt.Errorf("storage base %q: %w", base, err)
	}
	switch {
	case kindOf(&st) != unix.S_IFDIR:
		return fmt.Errorf("storage base %q: is no directory", base)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("storage base %q: belongs to user %d, not to %d", base, st.Uid, os.Geteuid())
	case st.Mode&0o077 != 0:
		return fmt.Errorf("storage base %q: mode is %#o: others have permissions on it, want 0700", base, st.Mode&0o7777)
	}
	return nil
}

// openBase pins a base after the same checks, without making it.
func openBase(base string) (int, error) {
	fd, err := unix.Open(base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("storage base %q: %w", base, err)
	}
	st, err := fstat(fd)
	if err == nil && (int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0) {
		err = errors.New("is not this user's alone")
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("storage base %q: %w", base, err)
	}
	return fd, nil
}
