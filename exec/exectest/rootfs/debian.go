package rootfs

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var debian = &root{name: "debian", fill: fillDebian, needs: []string{
	"/etc/debian_version", "/usr/bin/apt-get", "/usr/bin/python3", "/usr/bin/ldd",
}}

// Debian returns a root filesystem like that of a small Debian: /usr merged, the shells, coreutils, apt-get and Python
// (as far as "import json" goes), and links that are absolute, which lead out of the directory for whoever does not make it
// the root.
func Debian(tb testing.TB) string { tb.Helper(); return debian.get(tb) }

// programs are in it, where the host has them.
var programs = []string{
	"sh", "bash", "dash", "awk", "grep", "sed", "find", "xargs", "getent", "mount", "umount", "ps", "hostname",
	"cat", "ls", "cp", "mv", "rm", "mkdir", "rmdir", "ln", "chmod", "chown", "echo", "env", "id", "pwd", "true", "false",
	"sleep", "touch", "head", "tail", "wc", "sort", "uniq", "tr", "cut", "stat", "readlink", "realpath", "mktemp", "test",
	"expr", "printf", "seq", "tee", "dd", "df", "uname", "whoami", "date", "od", "basename", "dirname", "mkfifo", "nproc",
	"apt-get", "apt-config", "dpkg", "python3",
}

func fillDebian(t *tree) error {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := t.mkdir("/usr/"+dir, 0o755); err != nil {
			return err
		}
		if err := t.link("usr/"+dir, "/"+dir); err != nil {
			return err
		}
	}
	if err := t.directories("/etc/apt/apt.conf.d", "/etc/apt/sources.list.d", "/etc/alternatives", "/var/lib/dpkg", "/var/cache/apt", "/usr/share/empty"); err != nil {
		return err
	}
	if err := t.accounts("/bin/bash"); err != nil {
		return err
	}
	for path, text := range map[string]string{
		"/etc/hostname":        "debian\n",
		"/etc/hosts":           "127.0.0.1 localhost\n",
		"/var/lib/dpkg/status": "",
	} {
		if err := t.write(path, text); err != nil {
			return err
		}
	}
	for at, target := range map[string]string{"/var/run": "/run", "/var/lock": "/run/lock", "/etc/mtab": "/proc/self/mounts"} {
		if err := t.link(target, at); err != nil {
			return err
		}
	}
	for _, path := range []string{"/etc/debian_version", "/etc/os-release", "/etc/nsswitch.conf"} {
		if err := t.copy(path); err != nil {
			return err
		}
	}
	var paths []string
	for _, name := range programs {
		if path, err := exec.LookPath("/usr/bin/" + name); err == nil {
			paths = append(paths, path)
		}
	}
	loaded, err := libraries(paths...)
	if err != nil {
		return err
	}
	modules, err := pythonModules()
	if err != nil {
		return err
	}
	tables, err := filepath.Glob("/usr/share/dpkg/*table") // apt-get asks dpkg for the architecture
	if err != nil {
		return err
	}
	for _, list := range [][]string{paths, loaded, modules, tables} {
		for _, path := range list {
			if err := t.copy(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// libraries asks the loader what programs load, and where it is itself.
func libraries(programs ...string) (paths []string, err error) {
	text, err := exec.Command("ldd", programs...).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd: %w", err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		// "libc.so.6 => /lib/…/libc.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)", "/usr/bin/sh:", "linux-vdso.so.1 (0x…)"
		_, path, found := strings.Cut(line, "=> ")
		if !found {
			path = line
		}
		path, _, found = strings.Cut(strings.TrimSpace(path), " (0x")
		if found && filepath.IsAbs(path) && !seen[path] {
			seen[path] = true
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// pythonModules asks Python which files "import json" reads, with what it needs to start.
func pythonModules() (paths []string, err error) {
	const script = `
import json, encodings, glob, os, sys
for m in list(sys.modules.values()):
    if getattr(m, "__file__", None): print(m.__file__)
for m in json, encodings:
    for f in glob.glob(os.path.dirname(m.__file__) + "/*.py"): print(f)
`
	text, err := exec.Command("/usr/bin/python3", "-I", "-c", script).Output()
	if err != nil {
		return nil, fmt.Errorf("ask python3 for its modules: %w", err)
	}
	return strings.Fields(string(text)), nil
}
