package exec

import (
	"cmp"
	"path/filepath"
	"slices"

	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/cover"
	"github.com/sandlock-go/sandlock/ir"
)

// The default storages of branches hold what other sandboxes have changed, and what a commit of theirs will apply: who can write
// there writes to their working directories. They may lie beneath a grant, such as one of all of /tmp. A sandbox with mounts of
// its own does not see them; of another the user is told when there is something in them.

// storagesShown are the default storages as the command would see them.
func (s *sandbox) storagesShown() (rules []cover.Rule) {
	if s.view == nil {
		return nil
	}
	for _, base := range s.storagesGranted(false) {
		for _, path := range s.view.Shown(base) {
			if _, err := s.root.Real(path); err != nil { // the branch hides one in its own directory
				continue
			}
			rules = append(rules, cover.Rule{Path: path, Name: "the storage of branches", Alone: true})
		}
	}
	return rules
}

// tellOfStorages warns of those that the command can write to.
func (s *sandbox) tellOfStorages() {
	if s.view != nil && s.program.View.Mount {
		return
	}
	for _, base := range s.storagesGranted(true) {
		if all, err := branch.List(base); err == nil && len(all) > 0 {
			s.notice("the command can write to %s, where other sandboxes keep their changes: it decides what a commit of these applies "+
				"(grant less, or have this sandbox start with a filesystem.tmp of its own)", base)
		}
	}
}

// storagesGranted returns the default storages, links resolved, that some grant may have to do with.
func (s *sandbox) storagesGranted(writes bool) (bases []string) {
	var grants []string // on the host
	for _, o := range s.opened {
		if host, ok := s.onHost(cmp.Or(o.real, o.path)); ok && (!writes || (&ir.PathRule{Access: o.access}).Writes()) {
			grants = append(grants, host)
		}
	}
	if len(grants) == 0 {
		return nil
	}
	for _, base := range branch.Bases() {
		real, err := filepath.EvalSymlinks(base)
		if err == nil && slices.ContainsFunc(grants, func(grant string) bool { return beneath(real, grant) }) {
			bases = append(bases, real)
		}
	}
	return bases
}
