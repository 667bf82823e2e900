package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	root    string // the directory of the file system that is shown
	point   string // where
	kind    string
	options string // of the file system
}

// Mounts returns where cgroup v2 hierarchies can be reached in this mount namespace.
func Mounts() ([]string, error) {
	mounts, err := thisHost().mounts()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range mounts {
		if m.kind == "cgroup2" {
			points = append(points, m.point)
		}
	}
	return points, nil
}

// mounts lists the mounts of control groups, of both versions.
func (h host) mounts() ([]mount, error) {
	b, err := os.ReadFile(filepath.Join(h.proc, "self/mountinfo"))
	if err != nil {
		return nil, err
	}
	return parseMounts(string(b))
}

// parseMounts: numbers, device, root, mount point, options, further fields up to "-", then type, source and options of
// the file system.
func parseMounts(text string) (list []mount, err error) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 2 {
			return nil, fmt.Errorf("mountinfo: malformed line %q", line)
		}
		if g[0] != "cgroup" && g[0] != "cgroup2" {
			continue
		}
		m := mount{root: unescape(f[3]), point: unescape(f[4]), kind: g[0]}
		if len(g) > 2 {
			m.options = g[2]
		}
		list = append(list, m)
	}
	return list, nil
}

// unescape undoes \ooo, by which the kernel writes white space and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// own is the directory of the group that this process is in or, if an executor has made that to move out of the way,
// of the one above.
func (h host) own(mounts []mount) (string, error) {
	b, err := os.ReadFile(filepath.Join(h.proc, "self/cgroup"))
	if err != nil {
		return "", err
	}
	path, ok := parseOwn(string(b))
	if !ok {
		return "", fmt.Errorf("this kernel, or this container, has no cgroup v2 hierarchy")
	}
	if strings.HasPrefix(path, "/..") {
		return "", fmt.Errorf("the group of this process, %s, lies outside of its cgroup namespace", path)
	}
	if filepath.Base(path) == leafName {
		path = filepath.Dir(path)
	}
	for _, m := range mounts {
		if m.kind != "cgroup2" {
			continue
		}
		if rel, err := filepath.Rel(m.root, path); err == nil && filepath.IsLocal(rel) {
			return filepath.Join(m.point, rel), nil
		}
	}
	return "", fmt.Errorf("no mounted cgroup v2 hierarchy shows the group of this process, %s", path)
}

// parseOwn finds the group of the version 2 hierarchy: the line "0::/path".
func parseOwn(text string) (path string, ok bool) {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok && strings.HasPrefix(path, "/") {
			return path, true
		}
	}
	return "", false
}
