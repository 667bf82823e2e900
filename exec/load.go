package exec

import (
	"github.com/sandlock-go/sandlock/ir"
)

// Artifact is a policy whose seal was checked.
type Artifact struct {
	Program *ir.Program
	Digest  string // SHA-256 of header and payload, hex
}
