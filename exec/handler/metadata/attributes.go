package metadata

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// mayAttribute refuses a mapped command the attributes that the kernel keeps for those with capabilities outside of any
// user namespace: this process, in whose name it would be done, can have some.
func mayAttribute(m kernel.IDs, name string) error {
	if m.Mapped && (strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "trusted.")) {
		return unix.EPERM
	}
	return nil
}

// An access control list as an extended attribute (linux/posix_acl_xattr.h): a version and entries, each with a tag,
// permissions and an id.
const (
	aclHeader = 4
	aclEntry  = 8
	aclID     = 4 // where the id begins in an entry
	aclUser   = 0x02
	aclGroup  = 0x08
)

// translateAttribute translates the ids in the value of an attribute, where it is one that has any.
func translateAttribute(m kernel.IDs, name string, value []byte) error {
	if err := mayAttribute(m, name); err != nil || !m.Mapped || !strings.HasPrefix(name, "system.posix_acl_") {
		return err
	}
	le := binary.LittleEndian
	for at := aclHeader; at+aclEntry <= len(value); at += aclEntry {
		to := m.User
		switch le.Uint16(value[at:]) {
		case aclUser:
		case aclGroup:
			to = m.Group
		default:
			continue
		}
		id := le.Uint32(value[at+aclID:])
		if id == ^uint32(0) {
			return unix.EINVAL // unlike for chown it is no id
		}
		id, err := to(id)
		if err != nil {
			return err
		}
		le.PutUint32(value[at+aclID:], id)
	}
	return nil
}
