package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is a line of mountinfo.
type Mount struct {
	Dev      uint64
	Root, On string // the directory of the file system that is shown, and where
	User     uint32 // option user_id of FUSE
	HasUser  bool
}

// Mounts lists the mounts of this process's namespace.
func Mounts() ([]Mount, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	list, err := ParseMounts(table)
	if err != nil {
		return nil, fmt.Errorf("/proc/self/mountinfo: %w", err)
	}
	return list, nil
}

// MountsBeneath returns where something is mounted beneath a directory, whose path has no links.
func MountsBeneath(dir string) (points []string, err error) {
	list, err := Mounts()
	for i := range list {
		if strings.HasPrefix(list[i].On, dir+"/") {
			points = append(points, list[i].On)
		}
	}
	return points, err
}

var errTable = errors.New("malformed")

// ParseMounts reads /proc/self/mountinfo (proc_pid_mountinfo(5)). Users choose names in it, which the kernel escapes.
func ParseMounts(table []byte) (list []Mount, err error) {
	for line := range bytes.Lines(table) {
		m, err := parseMount(strings.TrimSuffix(string(line), "\n"))
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// parseMount reads a line: number, parent, major:minor, root, mount point, options, any optional fields, "-", type, source,
// options of the file system.
func parseMount(line string) (m Mount, err error) {
	fields := strings.Split(line, " ")
	dash := -1
	for i, f := range fields {
		if i >= 6 && f == "-" {
			dash = i
			break
		}
	}
	if dash < 0 || len(fields) < dash+4 {
		return m, errTable
	}
	major, minor, ok := strings.Cut(fields[2], ":")
	high, err1 := strconv.ParseUint(major, 10, 32)
	low, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return m, errTable
	}
	m.Dev = unix.Mkdev(uint32(high), uint32(low))
	if m.Root, err = unescape(fields[3]); err != nil {
		return m, err
	}
	if m.On, err = unescape(fields[4]); err != nil {
		return m, err
	}
	for option := range strings.SplitSeq(strings.Join(fields[dash+3:], " "), ",") {
		if text, ok := strings.CutPrefix(option, "user_id="); ok && !m.HasUser { // the mount's, by the kernel
			user, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return m, errTable
			}
			m.User, m.HasUser = uint32(user), true
		}
	}
	return m, nil
}

// unescape takes back what the kernel does to spaces, tabs, line ends, backslashes and '#': three octal digits.
func unescape(field string) (string, error) {
	var b strings.Builder
	for {
		plain, rest, escaped := strings.Cut(field, `\`)
		b.WriteString(plain)
		if !escaped {
			return b.String(), nil
		}
		if len(rest) < 3 {
			return "", errTable
		}
		c, err := strconv.ParseUint(rest[:3], 8, 8)
		if err != nil {
			return "", errTable
		}
		b.WriteByte(byte(c))
		field = rest[3:]
	}
}
