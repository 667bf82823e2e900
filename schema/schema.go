// Package schema holds the policy language as a CUE module, embedded in the binary.
//
// policy.cue and its neighbours define #Policy (constraints, all optional) and #Defaults (what applies when a field is
// absent); preset/ holds values that policies import. compiler/load unifies every policy with these bytes, never with
// a copy that it finds on disk. schema/shape reads the files as data for documentation and "did you mean".
//
// To add a field: declare it here with a doc comment, a default if it has one, then compiler/policy, compiler/load
// (decode_*.go), compiler/lower, and run go generate.
package schema

import "embed"

//go:generate go run ./internal/gendocs ../docs/policy.md

const (
	// ModulePath is what policies import, with the major version.
	ModulePath = "sandlock.dev/policy@v0"
	// ImportPath is the package of #Policy; presets are beneath it.
	ImportPath = "sandlock.dev/policy"
	// Version is the version of the module that this binary holds.
	Version = "v0.1.0"
)

// FS holds the module: cue.mod/module.cue, the package policy at its root, and preset/.
//
//go:embed cue.mod/module.cue *.cue preset/*.cue
var FS embed.FS
