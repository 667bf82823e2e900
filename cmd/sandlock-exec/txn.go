package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/ir"
)

const txnUsage = `Usage: sandlock-exec txn [flags] STAGES.json

Run several commands, one after the other or side by side, on one branch of a working directory (filesystem.workdir). Each
sees, and may execute, what those before it have made. If all succeed their changes are applied, all or none; at the first
that fails all are dropped. STAGES.json names the stages, "-" is standard input:

  {"stages": [
    {"name": "fetch", "artifact": "fetch.sbx", "argv": ["npm", "ci"]},
    {"name": "format", "artifact": "build.sbx", "argv": ["make", "format"], "optional": true},
    {"parallel": [
      {"name": "build", "artifact": "build.sbx", "argv": ["make", "-j4"], "params": {"target": "all"}, "cwd": "/src/app"},
      {"name": "lint", "artifact": "lint.sbx", "argv": ["npm", "run", "lint"]}
    ]}
  ]}

artifact is a compiled policy; its path, and cwd, are relative to the directory of STAGES.json. Without argv the policy's own
command is run, without cwd the stage starts in the current directory. "parallel" has stages that run side by side, without
standard input and terminal; "stages" has some that run one after the other, as a group. When an "optional" stage or group
fails, its changes alone are dropped, and the transaction goes on. All policies keep changes in the same working
directory and storage, with on_exit and on_error as they are by default.

Flags:
  -p NAME=VALUE            bind a parameter in all stages whose policies declare it, whatever STAGES.json says; repeatable
  --timeout DURATION       for all stages together (exit code 124); the commit is not bounded. 0s lets no stage begin
  --lock-wait DURATION     how long the commit waits for another one of the same directory (default 30s)
  --audit FILE             append one JSON line for each denied or notable event to FILE; "-" is standard error
  --explain-denials        watch what the policies refuse, and report it at the end; slower
  --allowed-signers FILE   as for a run, for every artifact
  --cgroup DIR             as for a run
  --dry-run                apply nothing: print what would have been changed, once all stages have succeeded
  --json, --diff           with --dry-run, as for a run
  --no-tee                 do not show what stages write to standard error while they run; that of one that fails is shown
                           when it has ended: the first and the last 32 KiB
  --savepoints             when a stage fails, or the transaction is ended, keep what the stages before have made
  --resume BRANCH          go on where a transaction with --savepoints has ended, in the branch (a directory) that it has
                           named; implies --savepoints. Stages that have succeeded must be the same and are not run again
  -q, --quiet              no hint when a stage fails, nor that its changes are dropped

Standard input and output are the stages' own. SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the stage that runs, and no other
begins; a commit that has begun is not stopped.

Exit codes: 0 applied, or shown; the code of the stage that failed, 128+N when signal N ended it, 127 its command is not
found, 126 it cannot be executed, 137 it lost processes to a limit; 124 time limit; 128+N when signal N ended the
transaction; 78 this is no transaction, and nothing was run; 70 a stage could not be set up; 75 somebody else has changed the
same, or is committing; 74 the branch could not be made or applied. After 74 and 75 the changes are kept, if there are any:
see sandlock-exec branch.
`

// txnOptions are the flags of a transaction. Those of a run mean the same for each of its stages.
type txnOptions struct {
	runOptions
	file     string
	lockWait time.Duration
	noTee    bool

	savepoints bool
	resume     string
}

// runTxn runs a transaction.
func runTxn(s *streams, args []string) error {
	s.usage = txnUsage
	o := txnOptions{runOptions: runOptions{params: params{}}}
	f := newFlags()
	o.define(f)
	f.DurationVar(&o.lockWait, "lock-wait", 0, "")
	f.BoolVar(&o.noTee, "no-tee", false, "")
	f.BoolVar(&o.savepoints, "savepoints", false, "")
	f.StringVar(&o.resume, "resume", "", "")
	var err error
	if o.file, err = parse(s, f, args); err != nil {
		return err
	}
	if o.file == "" {
		return errors.New("txn needs a file of stages (try sandlock-exec txn --help)")
	}
	if err := o.changes.settle(o.dryRun); err != nil {
		return err
	}
	for name, d := range map[string]*time.Duration{"timeout": &o.timeout, "lock-wait": &o.lockWait} {
		if *d < 0 {
			return fmt.Errorf("--%s %v is negative", name, *d)
		}
		f.Visit(func(given *flag.Flag) {
			if given.Name == name && *d == 0 {
				*d = -1 // none at all, where 0 is the default
			}
		})
	}
	return o.run(s)
}

func (o *txnOptions) run(s *streams) error {
	t, err := o.transaction(s)
	if err != nil {
		fail(s.err, err)
		return exitCode(exec.CodeInvalid)
	}
	result, err := t.Run(context.Background())
	o.report(s.err, &result, err)
	return exitCode(result.Code)
}

// transaction makes one of the file and the flags. Every artifact is read before anything runs: what a stage could do to it is
// too late.
func (o *txnOptions) transaction(s *streams) (*exec.Transaction, error) {
	specs, err := readStages(o.file, s.in)
	if err != nil {
		return nil, err
	}
	t := &exec.Transaction{Timeout: o.timeout, LockWait: o.lockWait, Savepoints: o.savepoints, Resume: o.resume, Foreground: true}
	if o.dryRun {
		t.Review = o.changes.review(s, o.quiet)
	}
	var log io.Writer
	if o.audit != "" {
		w, path, err := o.openAudit(s.err)
		if err != nil {
			return nil, err
		}
		log = w
		if path != "" {
			t.Guarded = append(t.Guarded, path)
		}
	}
	dir := "."
	if o.file != "-" {
		dir = filepath.Dir(o.file)
		t.Guarded = append(t.Guarded, realPath(o.file))
	}
	var shown io.Writer
	if !o.noTee {
		shown = liveStderr()
	}
	m := stageMaker{o: o, t: t, dir: dir, log: log, stdin: s.in, stdout: s.out, stderr: shown, used: map[string]bool{}}
	if t.Stages, err = m.stages(specs); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.params)) {
		if !m.used[name] {
			return nil, fmt.Errorf("-p %s: no policy of a stage declares that parameter", name)
		}
	}
	return t, nil
}

// stageMaker makes the stages of a transaction of their specifications.
type stageMaker struct {
	o              *txnOptions
	t              *exec.Transaction
	dir            string    // that paths are relative to
	log            io.Writer // nil without an audit log
	stdin          io.Reader
	stdout, stderr io.Writer
	used           map[string]bool // parameters of the command line that a policy declares
}

func (m *stageMaker) stages(specs []stageSpec) (all []exec.Stage, err error) {
	for i := range specs {
		stage, err := m.stage(&specs[i])
		if err != nil {
			return nil, err
		}
		all = append(all, stage)
	}
	return all, nil
}

func (m *stageMaker) stage(spec *stageSpec) (stage exec.Stage, err error) {
	stage = exec.Stage{Name: spec.name, Optional: spec.optional}
	switch {
	case spec.stages != nil:
		stage.Stages, err = m.stages(spec.stages)
	case spec.parallel != nil:
		beside := *m
		beside.stdin = nil // which of them would read what?
		stage.Parallel, err = beside.stages(spec.parallel)
	default:
		stage.Cmd, err = m.command(spec)
	}
	return stage, err
}

func (m *stageMaker) command(spec *stageSpec) (*exec.Cmd, error) {
	path := beside(m.dir, spec.artifact)
	one := runOptions{artifact: path, allowedSigners: m.o.allowedSigners}
	artifact, err := one.load()
	if err != nil {
		return nil, err
	}
	m.t.Guarded = append(m.t.Guarded, realPath(path))
	c := artifact.Command(context.Background(), "")
	if len(spec.argv) > 0 {
		c = artifact.Command(context.Background(), spec.argv[0], spec.argv[1:]...)
	}
	c.Params = m.o.bound(artifact.Program, spec.params, m.used)
	if spec.cwd != "" {
		if c.Dir, err = filepath.Abs(beside(m.dir, spec.cwd)); err != nil {
			return nil, err
		}
	}
	c.Env = environment()
	c.Explain, c.Cgroup = m.o.explain, m.o.cgroup
	c.Stdin, c.Stdout, c.Stderr = m.stdin, m.stdout, m.stderr
	if m.log != nil {
		c.Audit = audit.New(m.log, "sha256:"+artifact.Digest, artifact.Program.Name)
	}
	return c, nil
}

// environment is this process's, in memory of its own: a run takes the secrets of its policy out of the process's.
func environment() []string {
	all := os.Environ()
	for i := range all {
		all[i] = strings.Clone(all[i])
	}
	return all
}

func beside(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// bound adds the parameters of the command line that a policy declares to those of the file.
func (o *txnOptions) bound(p *ir.Program, given map[string]string, used map[string]bool) map[string]string {
	all := maps.Clone(given)
	if all == nil {
		all = map[string]string{}
	}
	for i := range p.Params {
		name := p.Params[i].Name
		if value, ok := o.params[name]; ok {
			all[name], used[name] = value, true
		}
	}
	return all
}

// report prints what the user should know of a transaction that did not go well.
func (o *txnOptions) report(w io.Writer, r *exec.TransactionResult, err error) {
	for i := range r.Stages {
		s := &r.Stages[i]
		if denied := s.Status.Denied; o.explain && len(denied) > 0 {
			fmt.Fprintf(w, "sandlock-exec: %s:\n", s.Label)
			printDenials(w, denied)
		}
		if s.Dropped && s.Err != nil && !o.quiet {
			fmt.Fprintf(w, "sandlock-exec: %s: %v: it is optional, and its changes are dropped\n", s.Label, s.Err)
		}
	}
	failed := r.Failed(err)
	if failed != nil && o.noTee {
		_, _ = w.Write(failed.Stderr)
	}
	fail(w, err)
	if b := r.Branch; err != nil && b != nil && b.Action != ir.BranchCommit && !b.Review {
		switch {
		case b.Err != nil:
			fmt.Fprintf(w, "sandlock-exec: %v\n", b.Err)
		case b.Action == ir.BranchKeep:
			fmt.Fprintf(w, "sandlock-exec: what the stages before have made is kept: sandlock-exec txn --resume %s …\n", shellWord(b.Dir))
		case !o.quiet:
			fmt.Fprintln(w, "sandlock-exec: the changes are dropped")
		}
	}
	if failed != nil && !o.quiet && !o.explain && errors.As(err, new(*exec.ExitError)) {
		fmt.Fprintln(w, "\thint: if its policy refused it something, --explain-denials says what")
	}
}
