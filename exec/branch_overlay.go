package exec

import (
	"path/filepath"

	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/view"
	"github.com/sandlock-go/sandlock/ir"
)

// overlayBranch is a branch that overlayfs shows.
type overlayBranch struct {
	*branch.Branch
	target string // the working directory as the command names it, links resolved
}

func (b overlayBranch) Commit() error { return b.Branch.Commit(branch.CommitOptions{}) }

// openOverlay makes the branch in the storage, and has the view mount it on the working directory.
func (s *sandbox) openOverlay(spec *view.Spec) error {
	target, lower, mounts, err := s.workdir(spec)
	if err != nil {
		return err
	}
	base, err := s.storage()
	if err != nil {
		return err
	}
	if err := s.placeable(spec, &ir.Branch{Kind: ir.BranchOverlay, Workdir: target, Storage: base}); err != nil {
		return err
	}
	options := branch.Options{Disk: s.program.Branch.Disk}
	var b *branch.Branch
	within := s.options.within
	if within != nil {
		b, err = within.take(target, lower, base)
	} else {
		b, err = branch.New(base, lower, options)
	}
	if err != nil {
		return err
	}
	s.branch = overlayBranch{b, target}
	overlay := &view.Overlay{Target: target, Mounts: mounts, Options: branch.OverlayOptions(), Bytes: options.Disk, Place: b.Place}
	overlay.Lower, overlay.Upper, overlay.Work = b.Layers()
	if within != nil {
		within.attach(overlay)
	}
	spec.Overlay = overlay
	return nil
}

// storage returns the directory that holds branches, links resolved, and makes it where it is missing.
func (s *sandbox) storage() (base string, err error) {
	given := ""
	if t := s.program.Branch.Storage; t != "" {
		if given, err = ir.ExpandPath(t, s.bound.lookup); err != nil {
			return "", err
		}
	}
	if base, err = branch.Base(given); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(base)
}
