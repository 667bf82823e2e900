package ir

// Branch is the copy-on-write branch of a working directory: what the command changes beneath Workdir is kept apart, and
// applied, dropped or left there when all is over. Zero without one. It needs a mount namespace and a PID namespace
// ([View.Mount], [View.PID]): nobody who could change it is left when it is applied. What is mounted beneath Workdir covers it.
type Branch struct {
	Workdir Template   `cbor:"1,keyasint,omitempty"` // in the command's name space; "" is no branch
	Kind    BranchKind `cbor:"2,keyasint,omitempty"`
	Storage Template   `cbor:"3,keyasint,omitempty"` // directory of the host that holds branches of an overlay; "" is the user's default

	OnExit  BranchAction `cbor:"4,keyasint,omitempty"` // after status 0
	OnError BranchAction `cbor:"5,keyasint,omitempty"` // after any other end: a status, a signal, a limit, a timeout

	// Disk bounds what the branch holds, in bytes, which is then kept in a file system of that size in memory; 0 is no bound.
	Disk uint64 `cbor:"6,keyasint,omitempty"`

	Origin     OriginRef `cbor:"7,keyasint,omitempty"` // of the working directory
	DiskOrigin OriginRef `cbor:"8,keyasint,omitempty"`
}

// BranchKind says what keeps a branch.
type BranchKind uint8

// Kinds of branch.
const (
	BranchNone    BranchKind = 0
	BranchOverlay BranchKind = 1 // overlayfs, mounted on the working directory
	BranchFS      BranchKind = 2 // the BranchFS that the working directory is on: without Storage and Disk, which are its own
)

// BranchAction is what becomes of a branch.
type BranchAction uint8

// Actions. The zero value is that of programs without a branch.
const (
	BranchCommit BranchAction = 1 // its changes are applied to the working directory
	BranchAbort  BranchAction = 2 // they are dropped
	BranchKeep   BranchAction = 3 // they are left where they are
)
