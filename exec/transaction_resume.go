package exec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/ir"
)

// progress is what a branch tells of the transaction that has left it.
type progress struct {
	Stages []string // what tells each from others, see identity
	Done   int      // how many have succeeded: the branch has their changes and no others
}

// identity is a digest of what a stage does: its policy, command, parameters and directory.
func (s *Stage) identity() string {
	text, _ := json.Marshal(struct {
		Artifact string
		Args     []string
		Params   map[string]string
		Dir      string
	}{s.artifact.Digest, s.args, s.Params, s.Dir})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// progress is the note of a state of the branch.
func (t *Transaction) progress(done int) []byte {
	p := progress{Done: done}
	for i := range t.commands {
		p.Stages = append(p.Stages, t.commands[i].identity())
	}
	text, _ := json.Marshal(p)
	return text
}

// open makes the branch, or opens the one that is to be gone on with.
func (t *Transaction) open(w *sharedBranch) (err error) {
	broken := func(err error) error { return &TransactionError{Code: CodeCommit, Stage: -1, Err: err} }
	if t.Resume == "" {
		if w.branch, err = branch.New(w.base, w.lower, w.options); err != nil {
			return broken(err)
		}
		return nil
	}
	refuse := func(format string, args ...any) error {
		return invalid([]string{fmt.Sprintf("resume %s: ", t.Resume) + fmt.Sprintf(format, args...)})
	}
	dir, err := filepath.Abs(t.Resume)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return refuse("%v", err)
	}
	if filepath.Dir(dir) != w.base {
		return refuse("the branch is not in the storage of the stages, %s", w.base)
	}
	b, err := branch.Open(w.base, filepath.Base(dir))
	if err != nil {
		return broken(err)
	}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if b.Workdir() != w.lower {
		return refuse("the branch is of %s, and the stages work in %s", b.Workdir(), w.lower)
	}
	var p progress
	text, err := b.Progress()
	if err == nil && text != nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return broken(err)
	}
	if len(p.Stages) == 0 || p.Done > len(p.Stages) || p.Done < 0 {
		return refuse("no transaction has left that branch")
	}
	if len(p.Stages) != len(t.commands) {
		return refuse("the transaction had %d stages, this one has %d", len(p.Stages), len(t.commands))
	}
	for i := range p.Done {
		if t.commands[i].identity() != p.Stages[i] {
			return refuse("%sit has succeeded as another one (policy, command, parameters, directory): only those after it may change", t.label(i))
		}
	}
	if p.Done < len(t.commands) && !slices.ContainsFunc(t.steps, func(s step) bool { return s.first == p.Done }) {
		return refuse("%sit is the first to be run, and in a group with one that is over", t.label(p.Done))
	}
	if err := b.Resume(); err != nil {
		return broken(err)
	}
	w.branch, w.mounted, w.done = b, true, p.Done
	return nil
}

// savepoint notes the state before a step that can be gone back to. Before the first there is nothing to be kept.
func (t *Transaction) savepoint(w *sharedBranch, s *step) error {
	if !s.Optional && (!t.resumable() || s.first == 0) {
		return nil
	}
	err := w.branch.Savepoint(t.progress(s.first))
	if err != nil {
		return &TransactionError{Code: CodeCommit, Stage: s.first, Err: err, label: t.label(s.first)}
	}
	w.saved = true
	return nil
}

// rollBack drops what a step has changed.
func (t *Transaction) rollBack(w *sharedBranch, s *step) error {
	if err := w.branch.Rollback(); err != nil {
		return &TransactionError{Code: CodeCommit, Stage: s.first, Err: err, label: t.label(s.first)}
	}
	w.saved = false
	return nil
}

// resumable reports whether the work of stages outlives the failure of another.
func (t *Transaction) resumable() bool { return t.Savepoints || t.Resume != "" }

// drop drops the changes, or all but those of the stages that have succeeded.
func (t *Transaction) drop(w *sharedBranch, done int, why error) (action ir.BranchAction, dir string, err error) {
	b := w.branch
	if !t.resumable() || done == 0 {
		if err = b.Abort(); err != nil {
			dir = b.Dir()
		}
		return ir.BranchAbort, dir, err
	}
	if w.saved {
		err = b.Rollback()
	} else {
		err = b.Mark(t.progress(done))
	}
	if err == nil {
		err = b.Keep(why.Error())
	}
	return ir.BranchKeep, b.Dir(), err
}
