package rootfs

import (
	"fmt"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const busyboxPath = "/usr/bin/busybox"

var busybox = &root{name: "busybox", fill: fillBusybox, needs: []string{busyboxPath}}

// Busybox returns a root filesystem with one program, which has many names. Their links are absolute, as those of
// "busybox --install -s": they lead out of the directory for whoever does not make it the root.
func Busybox(tb testing.TB) string { tb.Helper(); return busybox.get(tb) }

func fillBusybox(t *tree) error {
	if err := t.directories("/bin", "/sbin", "/usr/bin", "/usr/sbin"); err != nil {
		return err
	}
	if err := t.accounts("/bin/sh"); err != nil {
		return err
	}
	if err := t.copyFile(busyboxPath, "/bin/busybox"); err != nil {
		return err
	}
	if libraries, err := libraries(busyboxPath); err == nil { // a static one has none, and ldd fails
		for _, library := range libraries {
			if err := t.copyFile(library, library); err != nil {
				return err
			}
		}
	}
	names, err := exec.Command(busyboxPath, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("busybox --list-full: %w", err)
	}
	for _, name := range strings.Fields(string(names)) {
		at := path.Join("/", name)
		if at == "/bin/busybox" || at == busyboxPath || strings.HasPrefix(at, "/linuxrc") {
			continue
		}
		if err := t.link("/bin/busybox", at); err != nil {
			return err
		}
	}
	return nil
}
