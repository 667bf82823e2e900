package exec

import (
	"os"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// ids tells how the command's numbers of users and groups relate to this process's: in a user namespace it has one of each.
func (s *sandbox) ids() kernel.IDs {
	v := &s.program.View
	switch {
	case s.view == nil || !s.view.Namespaces.User:
		return kernel.IDs{}
	case v.MapIDs:
		return kernel.IDs{Mapped: true, UID: v.UID, GID: v.GID}
	}
	return kernel.IDs{Mapped: true, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// keptCapabilities are those that this process's threads keep once the command runs: what it does on behalf is done with no
// more than the command has. Capabilities of a user namespace are none here.
func (s *sandbox) keptCapabilities(command uint64) uint64 {
	if s.view != nil && s.view.Namespaces.User {
		return 0
	}
	return command
}
