// Package lower turns a checked policy into the sections of a program.
//
// In: the policy tree of compiler/policy, which compiler/check has accepted. Out: the fields of an [ir.Program], and a
// [seccomp.Request] from which the filters are made. One file a noun, one function a file: the noun's fields in the
// policy, the function, and below it the decisions that the function makes. It never refuses a policy (that is the
// business of compiler/check), grants nothing that the policy does not name, and knows neither CUE nor the host.
//
// To add a field: lower it in its noun's file, name it in that file's list of fields, say in mechanisms.go which
// mechanism enforces it, and take it out of compiler/unsupported.go.
//
// Read next: target.go (which rights are handled), filesystem.go, view.go (what is mounted), branch.go, network.go, syscalls.go.
package lower

import (
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/lock"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
)

// Unit is one policy on its way to a program. The passes of package compiler fill it in order.
type Unit struct {
	Policy  *policy.Policy
	Program *ir.Program
	Filter  seccomp.Request
	Lock    []lock.Entry // addresses of names in rules, sorted by name; none where they are resolved at the start

	origins      origins
	opensTrapped bool // see trapOpens
}

// New returns a unit with an empty program.
func New(p *policy.Policy) *Unit {
	return &Unit{Policy: p, Program: &ir.Program{}}
}

// Fields lists the policy fields that this package lowers, with everything beneath them.
func Fields() []string {
	return slices.Concat(
		identityFields, targetFields, paramsFields, programFields, filesystemFields, networkFields, httpFields, syscallsFields,
		limitsFields, determinismFields, rulesFields, testsFields, viewFields, branchFields,
	)
}

var identityFields = []string{"name", "description"}

// Identity lowers what the program is called.
func Identity(u *Unit) {
	u.Program.Name = u.Policy.Name.V
	u.Program.Description = strings.TrimSpace(u.Policy.Description.V)
}
