package exec

import (
	"fmt"
	"path/filepath"

	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/kernel"
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
	within := s.options.within
	if within == nil || !within.mounted { // else it has been said
		if err := s.hidesMounts(lower, spec.User); err != nil {
			return err
		}
	}
	options := branch.Options{Disk: s.program.Branch.Disk}
	var b *branch.Branch
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

// hidesMounts says what the command will not see, though it is there: a volume of a container, say. In a user namespace the
// kernel makes no overlay of a directory with mounts in it, as that would show what they cover (mount_namespaces(7), "locked").
func (s *sandbox) hidesMounts(workdir string, locked bool) error {
	points, err := kernel.MountsBeneath(workdir)
	if err != nil || len(points) == 0 {
		return nil // what cannot be told is not: the kernel decides by itself
	}
	what := points[0]
	if n := len(points) - 1; n > 0 {
		what += fmt.Sprintf(" and %d more", n)
	}
	if locked {
		return fmt.Errorf("there are mounts in %s, at %s: only root can have a branch of it, since that shows what the mounts cover", workdir, what)
	}
	s.notice("filesystem.workdir: what is mounted at %s is not in the branch: the command sees what is below it, and a commit keeps off it", what)
	return nil
}
