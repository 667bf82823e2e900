package view

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/stage"
)

// Overlay is a directory whose changes are kept apart (Documentation/filesystems/overlayfs.rst). Lower, Upper and Work are
// directories of the host.
type Overlay struct {
	Target             string
	Lower, Upper, Work string
	Options            []string // others, as in mount(8): "name" or "name=value"
}

// openOverlay mounts the overlay, not attached yet: its layers are named as the host has them. Each name is a parameter of its
// own (lowerdir+ since Linux 6.7), so none of its bytes means anything.
func (v *View) openOverlay() (mount *stage.Call, calls []*stage.Call) {
	o := v.spec.Overlay
	if o == nil {
		return nil, nil
	}
	what := "an overlay for " + o.Target
	fs := stage.NewCall("make "+what, unix.SYS_FSOPEN, "overlay", unix.FSOPEN_CLOEXEC)
	calls = []*stage.Call{fs}
	set := func(name, value string) {
		calls = append(calls, stage.NewCall("configure "+what+": "+name+" "+value, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, name, value, 0))
	}
	set("lowerdir+", o.Lower)
	set("upperdir", o.Upper)
	set("workdir", o.Work)
	for _, option := range o.Options {
		if name, value, ok := strings.Cut(option, "="); ok {
			set(name, value)
		} else {
			calls = append(calls, stage.NewCall("configure "+what+": "+name, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, name, 0, 0))
		}
	}
	mount = stage.NewCall("mount "+what, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	return mount, append(calls,
		stage.NewCall("create "+what, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0),
		mount, stage.NewCall("close", unix.SYS_CLOSE, fs))
}
