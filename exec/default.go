package exec

import (
	_ "embed"
	"fmt"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/seal"
)

//go:generate go run ../cmd/sandlock-compile ../policies/default.cue -o default.sbx

// The built-in default policy, compiled from policies/default.cue.
//
//go:embed default.sbx
var defaultArtifact []byte

// Default returns the built-in default policy. It takes the same way as any artifact, checks included.
func Default() (*Artifact, error) {
	sealed, err := seal.Open(defaultArtifact)
	if err != nil {
		return nil, fmt.Errorf("built-in default policy: %w", err)
	}
	program, err := ir.Decode(sealed.Payload)
	if err != nil {
		return nil, fmt.Errorf("built-in default policy: %w", err)
	}
	return &Artifact{Program: program, Digest: sealed.Digest, payload: sealed.Payload}, nil
}
