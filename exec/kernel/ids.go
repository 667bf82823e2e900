package kernel

import (
	"os"

	"golang.org/x/sys/unix"
)

// IDs translates user and group ids between a command and this process. The zero value leaves them as they are. A mapped
// command knows this process's user by UID and GID, and nobody else (user_namespaces(7)).
type IDs struct {
	Mapped   bool
	UID, GID uint32
}

// overflow is what an id is shown as that has no number in a user namespace (/proc/sys/kernel/overflowuid).
const overflow = 65534

// User returns this process's number for a user of the command: EINVAL where there is none. -1 means none, and stays.
func (m IDs) User(id uint32) (uint32, error) { return m.outside(id, m.UID, os.Geteuid()) }

// Group is User for groups.
func (m IDs) Group(id uint32) (uint32, error) { return m.outside(id, m.GID, os.Getegid()) }

func (m IDs) outside(id, mapped uint32, own int) (uint32, error) {
	switch {
	case !m.Mapped, id == ^uint32(0):
		return id, nil
	case id == mapped:
		return uint32(own), nil
	}
	return 0, unix.EINVAL
}

// ShownUser returns what the command is told of a user.
func (m IDs) ShownUser(id uint32) uint32 { return m.shown(id, m.UID, os.Geteuid()) }

// ShownGroup is ShownUser for groups.
func (m IDs) ShownGroup(id uint32) uint32 { return m.shown(id, m.GID, os.Getegid()) }

func (m IDs) shown(id, mapped uint32, own int) uint32 {
	switch {
	case !m.Mapped:
		return id
	case id == uint32(own):
		return mapped
	}
	return overflow
}
