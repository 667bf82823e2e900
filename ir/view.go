package ir

// View is what the command sees of the machine in a namespaced start: other namespaces than the executor's, and what is
// mounted in them. Zero for every other start.
//
// Paths are templates in the command's own name space, except for Root and the sources of mounts, which are the host's.
// The executor mounts in this order, so that a later line covers an earlier one: Root, Dev, Proc, Tmp, Mounts, Protect,
// Deny, Masks.
type View struct {
	// MapIDs runs the command as UID and GID of a user namespace (user_namespaces(7)). Without it ids are the executor's own,
	// and there is a user namespace only where the executor may not mount otherwise.
	MapIDs bool   `cbor:"1,keyasint,omitempty"`
	UID    uint32 `cbor:"2,keyasint,omitempty"`
	GID    uint32 `cbor:"3,keyasint,omitempty"`

	// Mount asks for a mount namespace and, with the program's name as hostname, a UTS namespace. Everything below needs it.
	Mount bool `cbor:"4,keyasint,omitempty"`
	// PID asks for a PID and an IPC namespace: whatever the command leaves behind ends with it, even when the executor is
	// killed (pid_namespaces(7)).
	PID bool `cbor:"5,keyasint,omitempty"`
	// Net asks for a network namespace with nothing but a loopback device: the policy allows no network.
	Net bool `cbor:"6,keyasint,omitempty"`

	Root   Template    `cbor:"7,keyasint,omitempty"` // directory of the host that becomes "/"; "" is the executor's
	Proc   ProcView    `cbor:"8,keyasint,omitempty"`
	Tmp    bool        `cbor:"9,keyasint,omitempty"`  // an own empty /tmp, gone at exit
	Dev    bool        `cbor:"10,keyasint,omitempty"` // an own /dev with the harmless devices of the host
	Sys    bool        `cbor:"11,keyasint,omitempty"` // beneath Root: the host's /sys, read-only
	Mounts []ViewMount `cbor:"12,keyasint,omitempty"` // in the order of the policy

	// Deny closes paths, wherever they are granted; missing ones cannot be created.
	Deny []ViewPath `cbor:"13,keyasint,omitempty"`
	// Protect keeps what matches unchanged: patterns of ir/glob, see [AbsolutePattern] and [ExpandProtect]. What is named
	// without a choice ([glob.Fixed]) cannot be created either.
	Protect []ViewPath `cbor:"14,keyasint,omitempty"`
	// Masks are files and directories of the kernel that stay closed; those that the host does not have are left out.
	Masks []string `cbor:"15,keyasint,omitempty"`
	// ReadOnly are directories of the kernel that cannot be written to, whatever is granted.
	ReadOnly []string `cbor:"16,keyasint,omitempty"`

	RootOrigin OriginRef `cbor:"17,keyasint,omitempty"`
	TmpOrigin  OriginRef `cbor:"18,keyasint,omitempty"`
	ProcOrigin OriginRef `cbor:"19,keyasint,omitempty"`
	MapOrigin  OriginRef `cbor:"20,keyasint,omitempty"`

	// Optional has the executor start without namespaces where the host refuses them, and say so. Nothing that is mounted or
	// hidden can be optional, so that no file is other than the policy says.
	Optional bool `cbor:"21,keyasint,omitempty"`
}

// Shows reports whether files that the policy gives other contents are mounted, so that no open is looked at for them.
func (v *View) Shows() bool { return v.Mount && !v.Optional }

// ProcView is what /proc shows.
type ProcView uint8

// Kinds of /proc.
const (
	ProcHost    ProcView = 0 // the host's, as far as it is granted
	ProcPrivate ProcView = 1 // an own one; a host that refuses to mount it (mount_too_revealing) stops the start
	ProcAuto    ProcView = 2 // an own one; a host that refuses to mount it shows its own, and the executor says so
)

// ViewMount shows a file or directory of the host elsewhere, with everything mounted beneath it.
type ViewMount struct {
	_        struct{} `cbor:",toarray"`
	Target   Template
	Source   Template
	ReadOnly bool
	Origin   OriginRef
}

// ViewPath is a path or pattern of the command's name space.
type ViewPath struct {
	_      struct{} `cbor:",toarray"`
	Path   Template
	Origin OriginRef
}

// Namespaced reports whether the start is a namespaced one.
func (p *Program) Namespaced() bool { return p.Process.Start == StartNamespaced }
