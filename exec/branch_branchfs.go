package exec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sandlock-go/sandlock/exec/branchfs"
	"github.com/sandlock-go/sandlock/exec/view"
	"github.com/sandlock-go/sandlock/ir"
)

// mountedBranch is a branch of the BranchFS that the working directory is on.
type mountedBranch struct{ *branchfs.Branch }

// Keep leaves the branch to the file system, which keeps no notes of ours.
func (mountedBranch) Keep(string) error { return nil }

// Full is not known: the bounds are the file system's.
func (mountedBranch) Full() bool { return false }

// openBranchFS makes a branch of what the working directory is in, and has the view show the branch's directory in its place.
func (s *sandbox) openBranchFS(spec *view.Spec) error {
	if s.options.Review != nil {
		return errors.New("BranchFS does not tell what has changed, so changes cannot be shown instead of made")
	}
	target, host, _, err := s.workdir(spec) // on no mount, as is found out next
	if err != nil {
		return err
	}
	if err := s.placeable(spec, &ir.Branch{Kind: ir.BranchFS, Workdir: target}); err != nil {
		return err
	}
	b, err := branchfs.New(host)
	if err != nil {
		return err
	}
	s.branch = mountedBranch{b}
	if err := aroundMount(spec, b.Mount()); err != nil {
		return err
	}
	spec.Bind = &view.Bind{Mount: strings.TrimPrefix(b.Mount(), spec.Root), Target: target, Source: b.Place(), Hidden: b.Controls()}
	return nil
}

// aroundMount refuses what would lead to the file system but by the branch: to the control files, and to other branches.
// Read-only too: who may read a control file can ask it for a commit.
func aroundMount(spec *view.Spec, mount string) error {
	if spec.Root != "" && beneath(spec.Root, mount) {
		return fmt.Errorf("the root directory %s is on the BranchFS %s, and not the other way round", spec.Root, mount)
	}
	for _, m := range spec.Mounts {
		if beneath(m.Source, mount) || beneath(mount, m.Source) {
			return fmt.Errorf("the mount at %s leads around the branch: %s and the BranchFS %s have files in common", m.Target, m.Source, mount)
		}
	}
	return nil
}
