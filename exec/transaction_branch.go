package exec

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/view"
)

// sharedBranch is the branch of a transaction: its stages are given it, and none decides about it.
type sharedBranch struct {
	branch      *branch.Branch
	lower, base string // working directory and storage, links resolved
	options     branch.Options
	mounted     bool  // by an earlier stage
	done        int   // how many commands are over, and what they have changed is there or dropped
	saved       bool  // there is a savepoint, and a stage has begun or may have
	failed      error // the branch could not be given to a stage
	trees       []int // mounts of it for commands that run side by side and have none yet

	foreground bool
	guarded    []string
}

// place is where a command of a transaction gets the branch.
type place struct {
	*sharedBranch
	planted bool   // an earlier stage may have left links in the working directory
	beside  bool   // others run at the same time
	others  int    // how many of them are to be given the mount that this one makes
	target  string // the working directory as the command names it, links resolved
}

// take gives the branch to a command, which mounts it anew, or attaches the mount of the one beside it. The command must mean
// the same directories as the transaction did when it was checked.
func (w *place) take(target, lower, base string) (*branch.Branch, error) {
	if lower != w.lower || base != w.base {
		return nil, fmt.Errorf("the working directory or the storage is another one now: %s and %s, not %s and %s", lower, base, w.lower, w.base)
	}
	if w.mounted && len(w.trees) == 0 {
		if w.failed = w.branch.Reuse(); w.failed != nil {
			return nil, w.failed
		}
	}
	w.target, w.mounted = target, true
	return w.branch, nil
}

// attach has the view show the mount of the command beside this one, if that has made it already; else make it, for all of them.
func (w *place) attach(o *view.Overlay) {
	if n := len(w.trees); n > 0 {
		*o = view.Overlay{Target: o.Target, Mounts: o.Mounts, Tree: w.trees[n-1]}
		w.trees = w.trees[:n-1]
		return
	}
	o.Clones = w.others
}

// closeTrees closes mounts that nobody has been given: the branch is in use as long as one is open.
func (w *sharedBranch) closeTrees() {
	for _, fd := range w.trees {
		_ = unix.Close(fd)
	}
	w.trees = nil
}

// narrow adds to the options of a stage what its transaction asks for. w may be nil.
func (w *place) narrow(o *Options) {
	if w != nil {
		o.within, o.Guarded, o.ShowPorts = w, w.guarded, w.foreground
	}
}

// ownsProcess reports whether this process does nothing beside the stage. w may be nil.
func (w *place) ownsProcess() bool { return w != nil && w.foreground && !w.beside }
