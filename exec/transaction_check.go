package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/exec/cover"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/view"
	"github.com/sandlock-go/sandlock/ir"
)

// check looks at everything that can be known before something runs or is made. Where stages are no transaction, all that is
// wrong is said at once.
func (t *Transaction) check() (*sharedBranch, error) {
	w := &sharedBranch{foreground: t.Foreground, guarded: t.Guarded}
	var boxes []*sandbox
	problems := t.plan()
	if n := len(t.commands); n < 2 {
		problems = append(problems, fmt.Sprintf("a transaction has two stages at least, this one has %d", n))
	}
	if t.Review != nil && t.resumable() {
		problems = append(problems, "a dry run keeps nothing: it can neither have savepoints nor resume a branch")
	}
	seen := map[*Cmd]int{}
	for i := range t.commands {
		c := t.commands[i].Cmd
		if c == nil {
			continue // which plan has told
		}
		wrong := ""
		if first, twice := seen[c]; twice {
			wrong = fmt.Sprintf("its command is that of stage %d: each runs once", first+1)
		} else {
			seen[c] = i
			wrong = c.unfit()
		}
		if wrong != "" {
			problems = append(problems, t.label(i)+wrong)
			continue
		}
		s, more := c.checked()
		for _, p := range more {
			problems = append(problems, t.label(i)+p)
		}
		boxes = append(boxes, s)
	}
	if len(problems) > 0 {
		return nil, invalid(problems)
	}
	if err := t.hosted(boxes); err != nil {
		return nil, err
	}
	return w, t.place(w, boxes)
}

func invalid(problems []string) error {
	text := strings.Join(problems, "\n\t")
	if len(problems) > 1 {
		text = "this is no transaction:\n\t" + text
	}
	return &TransactionError{Code: CodeInvalid, Stage: -1, Err: errors.New(text)}
}

// unfit says why a command cannot be a stage, whatever its policy.
func (c *Cmd) unfit() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.artifact == nil {
		return "its command was not made by Artifact.Command"
	}
	b := &c.artifact.Program.Branch
	switch {
	case c.state != isNew:
		return "its command was started already"
	case c.Review != nil:
		return "its command has a Review of its own: the transaction has one for all"
	case c.streams.taken[2] != nil:
		return "its command has a pipe from standard error, which the transaction reads itself"
	case b.Kind == ir.BranchNone:
		return "its policy keeps no changes apart: it needs filesystem.workdir"
	case b.Kind != ir.BranchOverlay:
		return `its policy keeps changes apart by other means than an overlay (filesystem.isolation): they cannot be shared`
	case b.OnExit != ir.BranchCommit || b.OnError != ir.BranchAbort:
		return `its policy decides what becomes of the changes, which is the transaction's to decide: leave filesystem.on_exit at "commit" and on_error at "abort"`
	case c.artifact.Program.Process.Start == ir.StartInPlace:
		return "its policy has no supervisor (program.no_supervisor)"
	case c.artifact.Program.View.Root != "":
		return "its policy has another root (filesystem.chroot), in which the working directory is another one"
	}
	return ""
}

// checked binds what the branch's place is made of, and nothing that would have to be made for that.
func (c *Cmd) checked() (s *sandbox, problems []string) {
	s, err := newSandbox(Options{Artifact: c.artifact, Environ: c.environ(), dir: c.Dir, Cgroup: c.Cgroup})
	if err != nil {
		return nil, []string{err.Error()}
	}
	used := usedNames(s.program)
	own := used["tmp"]
	delete(used, "tmp")
	s.bound, problems = bindUsed(s.program, used, c.Params, c.environ(), c.Dir)
	if own {
		for _, t := range []ir.Template{s.program.Branch.Workdir, s.program.Branch.Storage} {
			if names, err := ir.Names(t); err == nil && slices.Contains(names, "tmp") {
				problems = append(problems, t+" is another directory in each stage, and the branch is of one")
			}
		}
		s.bound.values["tmp"] = os.TempDir() // until there is one of the stage's own
	}
	return s, problems
}

// hosted checks that this host offers what the stages require: a later one is not to fail for that when others have worked.
// What takes a control group shows when the stage starts, since to look for one may move this process.
func (t *Transaction) hosted(boxes []*sandbox) error {
	host := kernel.ProbeForStart()
	host.CgroupMemory, host.CgroupCPU = true, true
	for i, s := range boxes {
		problems := unmet(s.program, host)
		_, lacking := handledHere(&s.program.Landlock, host.LandlockABI)
		if problems = append(problems, lacking...); len(problems) > 0 {
			return &TransactionError{Code: CodeStage, Stage: i, Err: &SetupError{problems}, label: t.label(i)}
		}
	}
	return nil
}

// place finds the one working directory and the one storage. The storage is made where it is missing; no branch is.
func (t *Transaction) place(w *sharedBranch, boxes []*sandbox) error {
	var problems []string
	unplaced := func(i int, err error) error {
		return &TransactionError{Code: CodeCommit, Stage: i, Err: err, label: t.label(i)}
	}
	given := ""
	var specs []view.Spec
	for i, s := range boxes {
		b := &s.program.Branch
		spec, lacking := s.viewSpec(&s.program.View)
		if len(lacking) > 0 {
			return &TransactionError{Code: CodeStage, Stage: i, Err: &SetupError{lacking}, label: t.label(i)}
		}
		specs = append(specs, spec)
		_, lower, _, err := s.workdir(&spec)
		if err != nil {
			return unplaced(i, s.ruleError(b.Origin, err))
		}
		storage := ""
		if b.Storage != "" {
			if storage, err = ir.ExpandPath(b.Storage, s.bound.lookup); err != nil {
				return unplaced(i, s.ruleError(b.Origin, err))
			}
			if real, err := filepath.EvalSymlinks(storage); err == nil {
				storage = real
			}
		}
		if i == 0 {
			w.lower, w.options.Disk, given = lower, b.Disk, storage
			continue
		}
		if b.Disk != w.options.Disk {
			problems = append(problems, fmt.Sprintf("%sits limits.disk is %s, that of the first stage %s", t.label(i), orUnlimited(b.Disk), orUnlimited(w.options.Disk)))
		}
		if lower != w.lower {
			problems = append(problems, fmt.Sprintf("%sits working directory is %s, that of the first stage %s", t.label(i), lower, w.lower))
		}
		if storage != given {
			problems = append(problems, fmt.Sprintf("%sits storage is %s, that of the first stage %s", t.label(i), orDefault(storage), orDefault(given)))
		}
	}
	if w.options.Disk > 0 && (t.resumable() || slices.ContainsFunc(t.steps, func(s step) bool { return s.Optional })) {
		problems = append(problems, "under limits.disk the changes are in memory: there can neither be savepoints, and so no optional stages, nor a branch to resume")
	}
	if len(problems) > 0 {
		return invalid(problems)
	}
	var err error
	if w.base, err = boxes[0].storage(); err != nil {
		return unplaced(-1, err)
	}
	for i, s := range boxes {
		if usedNames(s.program)["tmp"] {
			continue // it is checked with the rest when there is one
		}
		target, _, _, err := s.workdir(&specs[i])
		if err == nil {
			err = s.placeable(&specs[i], &ir.Branch{Kind: ir.BranchOverlay, Workdir: target, Storage: w.base})
		}
		if err != nil {
			problems = append(problems, t.label(i)+s.ruleError(s.program.Branch.Origin, err).Error())
		}
	}
	if len(problems) > 0 {
		return invalid(problems)
	}
	return nil
}

func orUnlimited(bytes uint64) string {
	if bytes == 0 {
		return "unlimited"
	}
	return fmt.Sprintf("%d bytes", bytes)
}

func orDefault(storage string) string {
	if storage == "" {
		return "the default"
	}
	return storage
}

// plantedByStages finds grants that a link in the branch leads out of the working directory: an earlier stage may have put it
// there, under another policy than the one that is about to be granted what it leads to.
func (s *sandbox) plantedByStages() (problems []string) {
	w := s.options.within
	if w == nil || !w.planted {
		return nil
	}
	for _, o := range s.opened {
		if beneath(o.real, w.target) {
			continue
		}
		links, _, err := cover.Links(s.root, o.path)
		for _, link := range links {
			if link != w.target && beneath(link, w.target) {
				err = fmt.Errorf("%s leads to %s by the link %s, out of the working directory: an earlier stage could have placed that link", o.path, o.real, link)
				break
			}
		}
		if err != nil && !errors.Is(err, cover.ErrSelf) {
			problems = append(problems, s.ruleError(o.origin, err).Error())
		}
	}
	return problems
}
