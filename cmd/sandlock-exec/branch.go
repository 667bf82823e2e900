package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/branch"
	"github.com/sandlock-go/sandlock/exec/branchfs"
)

const branchUsage = `Usage: sandlock-exec branch [list] [--json]
       sandlock-exec branch show [--json] BRANCH
       sandlock-exec branch diff BRANCH
       sandlock-exec branch commit [--force] BRANCH
       sandlock-exec branch abort BRANCH
       sandlock-exec branch recover [BRANCH | --workdir DIR]

Look after branches of working directories (filesystem.workdir): changes that were kept, that could not be applied, or that
a killed executor has left behind. BRANCH is the beginning of an identifier that no other branch has, or the branch's
directory. Branches of a BranchFS (filesystem.isolation "branchfs") are directories MOUNT/@NAME, and can be committed and
aborted.

Flags:
  --storage DIR            where the branches are; without it the user's own: $XDG_RUNTIME_DIR/sandlock-cow and
                           $TMPDIR/sandlock-cow-UID, or without these variables in /run/user/UID and /tmp
  --json                   JSON, an object a line
  --force                  commit: also over what others have changed meanwhile, and what is left of an incomplete branch
  --workdir DIR            recover the working directory itself, as when its branch is lost

list prints all branches, show what is known of one and its changes, diff what has changed in its files. commit applies the
changes, abort drops them. recover ends commits that were interrupted, of all branches or the one: the working directory is
as it was before then, or has all changes.

Exit codes: 75 the branch or its directory is in use, or others have changed the same; 74 the changes could not be applied or
read; 125 any other failure.
`

// branchCommand is one of the commands of branch.
type branchCommand struct {
	name    string
	storage string
	json    bool
	force   bool
	workdir string
	id      string // as it was given

	bases []string // where branches are looked for
}

// runBranch looks after branches.
func runBranch(s *streams, args []string) error {
	s.usage = branchUsage
	c := branchCommand{name: "list"}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		c.name, args = args[0], args[1:]
	}
	runs := map[string]func(*branchCommand, *streams) error{
		"list": (*branchCommand).list, "show": (*branchCommand).show, "diff": (*branchCommand).diff,
		"commit": (*branchCommand).commit, "abort": (*branchCommand).abort, "recover": (*branchCommand).recover,
	}
	if c.name == "help" {
		_, err := io.WriteString(s.out, branchUsage)
		return err
	}
	run, ok := runs[c.name]
	if !ok {
		return fmt.Errorf("branch has no command %q (try sandlock-exec branch --help)", c.name)
	}
	f := newFlags()
	f.StringVar(&c.storage, "storage", "", "")
	if c.name == "list" || c.name == "show" {
		f.BoolVar(&c.json, "json", false, "")
	}
	if c.name == "commit" {
		f.BoolVar(&c.force, "force", false, "")
	}
	if c.name == "recover" {
		f.StringVar(&c.workdir, "workdir", "", "")
	}
	var err error
	if c.id, err = parse(s, f, args); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("branch %s %w (try sandlock-exec branch --help)", c.name, err)
	}
	if ofBranchFS(c.id) {
		return c.settleBranchFS(s)
	}
	if err := c.openBases(); err != nil {
		return err
	}
	return run(&c, s)
}

// check says what is wrong with the arguments.
func (c *branchCommand) check() error {
	switch {
	case c.name == "list" && c.id != "":
		return errors.New("takes no branch")
	case c.name == "recover" && c.id != "" && c.workdir != "":
		return errors.New("takes a branch or --workdir, not both")
	case c.name != "list" && c.name != "recover" && c.id == "":
		return errors.New("needs a branch")
	case c.storage != "" && strings.Contains(c.id, "/"):
		return errors.New("takes the branch's directory or --storage, not both")
	}
	return nil
}

// openBases finds the directories of the branches: the one that was named, which must be there, or the defaults that are.
func (c *branchCommand) openBases() error {
	if strings.Contains(c.id, "/") {
		dir, err := filepath.Abs(c.id)
		if err != nil {
			return err
		}
		c.storage, c.id = filepath.Dir(dir), filepath.Base(dir)
	}
	if c.storage == "" {
		c.bases = branch.Bases()
		return nil
	}
	if _, err := os.Stat(c.storage); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	base, err := branch.Base(c.storage)
	c.bases = []string{base}
	return err
}

// all lists the branches, base by base.
func (c *branchCommand) all() (list []branch.Info, err error) {
	for _, base := range c.bases {
		more, err := branch.List(base)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// base is where a branch is.
func base(i *branch.Info) string { return filepath.Dir(i.Dir) }

// find returns the branch that the argument is the beginning of.
func (c *branchCommand) find() (*branch.Info, error) {
	all, err := c.all()
	if err != nil {
		return nil, err
	}
	var found []*branch.Info
	for i := range all {
		if strings.HasPrefix(all[i].ID, c.id) {
			found = append(found, &all[i])
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no branch %q in %s", c.id, c.where())
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%d branches in %s begin with %q", len(found), c.where(), c.id)
}

// where names the directories of the branches in messages.
func (c *branchCommand) where() string {
	return cmp.Or(strings.Join(c.bases, ", "), "the default storage, which is not there")
}

// free returns the branch if nobody uses it.
func (c *branchCommand) free(s *streams) (*branch.Info, error) {
	info, err := c.find()
	if err == nil && info.Alive {
		fmt.Fprintf(s.err, "sandlock-exec: branch %s is in use: its run (process %d), or another command, is not over\n", info.ID, info.Pid)
		err = exitCode(exec.CodeConflict)
	}
	return info, err
}

// The states of a branch, beside the reasons that it was kept for.
const (
	stateRunning    = "running"
	stateCommitting = "committing"
	stateAbandoned  = "abandoned"  // its executor was killed
	stateIncomplete = "incomplete" // changes may be lost
	stateLost       = "lost"       // they were in memory, and its executor was killed
)

func stateOf(i *branch.Info) string {
	switch {
	case i.Alive && i.Kept == branch.ReasonInterrupted:
		return stateCommitting
	case i.Alive:
		return stateRunning
	case i.Empty && i.Kept != branch.ReasonInterrupted:
		return stateLost
	case i.Incomplete && i.Kept != branch.ReasonInterrupted:
		return stateIncomplete
	case i.Kept == "":
		return stateAbandoned
	}
	return i.Kept
}

// branchJSON is a branch as list and show print it.
type branchJSON struct {
	ID      string    `json:"id"`
	Dir     string    `json:"dir"`
	Workdir string    `json:"workdir"`
	Created time.Time `json:"created"`
	PID     int       `json:"pid"`
	State   string    `json:"state"`
	Detail  string    `json:"detail,omitempty"`
	Disk    uint64    `json:"disk_bytes,omitempty"` // limits.disk

	Resumable bool `json:"resumable,omitempty"` // by a transaction
}

func asJSON(i *branch.Info) branchJSON {
	return branchJSON{ID: i.ID, Dir: i.Dir, Workdir: i.Workdir, Created: i.Created.Round(0), PID: i.Pid, State: stateOf(i), Detail: i.Detail, Disk: i.Options.Disk, Resumable: i.Resumable}
}

// shortID is how much of an identifier a list shows.
const shortID = 12

func (c *branchCommand) list(s *streams) error {
	all, err := c.all()
	if err != nil {
		return err
	}
	enc := json.NewEncoder(s.out)
	for i := range all {
		info := &all[i]
		if c.json {
			err = enc.Encode(asJSON(info))
		} else {
			_, err = fmt.Fprintf(s.out, "%s  %-17s  %s  %s\n", info.ID[:shortID], stateOf(info), info.Created.Format("2006-01-02 15:04"), quoteName(info.Workdir))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// show prints what is known of a branch, and its changes: not while its command, or a commit, changes both sides.
func (c *branchCommand) show(s *streams) error {
	info, err := c.find()
	if err != nil {
		return err
	}
	settled := !info.Alive && info.Kept != branch.ReasonInterrupted && !info.Empty
	var b *branch.Branch
	if settled {
		if b, err = branch.Open(base(info), info.ID); err != nil {
			return branchError(s, err)
		}
		defer b.Close()
	}
	if c.json {
		return branchError(s, showJSON(s.out, info, b))
	}
	state := stateOf(info)
	if info.Detail != "" {
		state += ": " + info.Detail
	}
	if _, err := fmt.Fprintf(s.out, "branch   %s\nstate    %s\nworkdir  %s\nkept in  %s\nmade     %s by process %d\n", info.ID, state, quoteName(info.Workdir),
		quoteName(info.Dir), info.Created.Format(time.RFC3339), info.Pid); err != nil {
		return err
	}
	if n := info.Options.Disk; n > 0 {
		if _, err := fmt.Fprintf(s.out, "bound    %d bytes, in memory while it ran (limits.disk)\n", n); err != nil {
			return err
		}
	}
	if info.Resumable {
		if _, err := fmt.Fprintf(s.out, "resume   sandlock-exec txn --resume %s …, from its savepoint on\n", shellWord(info.Dir)); err != nil {
			return err
		}
	}
	switch {
	case info.Alive:
		_, err = fmt.Fprintln(s.out, "\nIn use: its changes can be shown when that is over.")
		return err
	case info.Empty && info.Kept != branch.ReasonInterrupted:
		_, err = fmt.Fprintf(s.out, "\nIts changes were in memory (limits.disk), and are gone with the process: sandlock-exec branch abort %s\n", shellWord(info.Dir))
		return err
	case !settled:
		_, err = fmt.Fprintf(s.out, "\nA commit of it was interrupted: sandlock-exec branch recover %s\n", shellWord(info.Dir))
		return err
	}
	if info.Incomplete {
		const why = "\nThe machine went down, or its disk failed, before all was on disk: files may be empty or missing in what follows."
		if _, err = fmt.Fprintln(s.out, why); err != nil {
			return err
		}
	}
	fmt.Fprintln(s.out)
	n, err := changeFormat{list: true}.print(s.out, b)
	if err == nil && n == 0 {
		_, err = fmt.Fprintln(s.out, "No changes.")
	}
	return branchError(s, err)
}

// showJSON prints one object. Its changes, where there is a branch to be read, are the last member, printed as they are found:
// there may be millions.
func showJSON(w io.Writer, info *branch.Info, b *branch.Branch) error {
	out := bufio.NewWriter(w)
	head, err := json.Marshal(asJSON(info))
	if err != nil {
		return err
	}
	if b == nil {
		out.Write(append(head, '\n'))
		return out.Flush()
	}
	out.Write(head[:len(head)-1])
	out.WriteString(`,"changes":[`)
	separator := ""
	for change, err := range b.Changes() {
		var text []byte
		if err == nil {
			text, err = json.Marshal(change)
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		out.WriteString(separator)
		if _, err := out.Write(text); err != nil {
			return err
		}
		separator = ","
	}
	out.WriteString("]}\n")
	return out.Flush()
}

func (c *branchCommand) diff(s *streams) error {
	b, err := c.open(s)
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = changeFormat{diff: true}.print(s.out, b)
	return branchError(s, err)
}

// open opens a branch that nobody uses.
func (c *branchCommand) open(s *streams) (*branch.Branch, error) {
	info, err := c.free(s)
	if err != nil {
		return nil, err
	}
	if info.Kept == branch.ReasonInterrupted {
		return nil, branchError(s, &branch.UnfinishedError{Workdir: info.Workdir})
	}
	b, err := branch.Open(base(info), info.ID)
	return b, branchError(s, err)
}

func (c *branchCommand) commit(s *streams) error {
	b, err := c.open(s)
	if err != nil {
		return err
	}
	defer b.Close()
	return branchError(s, b.Commit(branch.CommitOptions{Force: c.force}))
}

func (c *branchCommand) abort(s *streams) error {
	info, err := c.free(s)
	if err != nil {
		return err
	}
	return branchError(s, branch.Discard(base(info), info.ID))
}

func (c *branchCommand) recover(s *streams) error {
	if c.workdir != "" {
		return c.recoverWorkdir(s)
	}
	if c.id != "" {
		info, err := c.free(s)
		if err != nil {
			return err
		}
		return c.recoverOne(s, info)
	}
	all, err := c.all()
	if err != nil {
		return err
	}
	var first error
	for i := range all {
		if info := &all[i]; !info.Alive && info.Kept == branch.ReasonInterrupted {
			if err := c.recoverOne(s, info); err != nil && first == nil {
				first = err
			}
		}
	}
	return first
}

func (c *branchCommand) recoverOne(s *streams, info *branch.Info) error {
	outcome, err := branch.Recover(base(info), info.ID)
	if err != nil {
		return branchError(s, err)
	}
	_, err = fmt.Fprintf(s.out, "%s  %s: %s\n", info.ID[:shortID], quoteName(info.Workdir), outcome)
	return err
}

// recoverWorkdir recovers by the branch where that is in the storage: it then knows what became of its commit.
func (c *branchCommand) recoverWorkdir(s *streams) error {
	dir, err := filepath.Abs(c.workdir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	id, err := branch.Unfinished(dir)
	if err != nil {
		return branchError(s, err)
	}
	if id != "" {
		for _, base := range c.bases {
			if info, err := branch.Show(base, id); err == nil {
				return c.recoverOne(s, info)
			}
		}
	}
	outcome, err := branch.RecoverWorkdir(dir)
	if err != nil {
		return branchError(s, err)
	}
	_, err = fmt.Fprintf(s.out, "%s: %s\n", quoteName(dir), outcome)
	return err
}

// branchError prints what a branch failed of, and returns the exit code for it.
func branchError(s *streams, err error) error {
	if err == nil {
		return nil
	}
	fail(s.err, err)
	return exitCode(exec.BranchCode(err))
}

// branchHint says what can be done about a failure. The error knows the branch, or else dir does.
func branchHint(err error, dir string) string {
	var conflict *branch.ConflictError
	var lock *branch.LockError
	var commit *branch.CommitError
	var unfinished *branch.UnfinishedError
	var late *branchfs.ConflictError
	var refused *branchfs.CommitError
	var incomplete *branch.IncompleteError
	const tool = "sandlock-exec branch "
	switch {
	case errors.As(err, &conflict):
		dir = shellWord(conflict.Dir)
		return tool + "commit --force " + dir + " makes the changes over the others', " + tool + "abort " + dir + " drops them"
	case errors.As(err, &late):
		return tool + "abort " + shellWord(late.Dir) + " drops the changes, once what is wanted of them is copied from there"
	case errors.As(err, &refused):
		return settleHint(refused.Dir, "tries again")
	case errors.As(err, &incomplete):
		dir = shellWord(incomplete.Dir)
		return tool + "show " + dir + " and diff show what is left, " + tool + "commit --force " + dir + " applies that, " + tool + "abort " + dir + " drops it"
	case errors.As(err, &unfinished):
		if dir != "" {
			return tool + "recover " + shellWord(dir)
		}
		return tool + "recover --workdir " + shellWord(unfinished.Workdir)
	case errors.As(err, &lock) && lock.Dir != "":
		return tool + "commit " + shellWord(lock.Dir) + " tries again"
	case errors.As(err, &commit) && !commit.Undone:
		return tool + "recover " + shellWord(commit.Dir)
	case errors.As(err, &commit):
		return settleHint(commit.Dir, "tries again")
	}
	return ""
}

// shellWord quotes a path for a shell where it needs that.
func shellWord(path string) string {
	plain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("/._-+,:@%", r)
	}
	if path != "" && !strings.ContainsFunc(path, func(r rune) bool { return !plain(r) }) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
