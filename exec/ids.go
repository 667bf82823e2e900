package exec

import "github.com/sandlock-go/sandlock/exec/kernel"

// ids tells how the command's numbers of users and groups relate to this process's.
func (s *sandbox) ids() kernel.IDs {
	v := &s.program.View
	return kernel.IDs{Mapped: v.MapIDs, UID: v.UID, GID: v.GID}
}
