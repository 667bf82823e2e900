package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/audit"
	"github.com/sandlock-go/sandlock/ir"
)

func (c *runOptions) run(s *streams) error {
	artifact, err := c.load()
	if err != nil {
		return err
	}
	o := exec.Options{
		Artifact: artifact,
		Command:  s.command,
		Params:   c.params,
		Environ:  os.Environ(),
		Timeout:  c.timeout,
		Cgroup:   c.cgroup,
		Explain:  c.explain,

		ShowPorts: true,
	}
	if c.artifact != "" {
		o.Guarded = append(o.Guarded, realPath(c.artifact))
	}
	if c.audit != "" {
		w, path, err := c.openAudit(s.err)
		if err != nil {
			return err
		}
		if path != "" {
			o.Guarded = append(o.Guarded, path)
		}
		o.Audit = audit.New(w, "sha256:"+artifact.Digest, artifact.Program.Name)
	}
	if c.dryRun {
		o.Review = c.changes.review(s, c.quiet)
	}
	result, err := exec.Run(o)
	if err != nil {
		return err
	}
	c.report(s.err, result)
	return exitCode(result.Code)
}

func (c *runOptions) load() (*exec.Artifact, error) {
	if c.artifact == "" {
		if c.allowedSigners != "" {
			return nil, errors.New("--allowed-signers needs an artifact: the built-in default policy carries no signature")
		}
		return exec.Default()
	}
	signers := c.allowedSigners
	if signers == "" {
		signers = standingSigners()
	}
	return exec.Load(c.artifact, exec.AllowedSigners(signers))
}

// standingSigners returns the configured file of allowed signers: where one exists, a signature is mandatory.
func standingSigners() string {
	files := []string{"/etc/sandlock/allowed_signers"}
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		files = append(files, filepath.Join(dir, "sandlock/allowed_signers"))
	} else if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		files = append(files, filepath.Join(home, ".config/sandlock/allowed_signers"))
	}
	for _, f := range files {
		// What cannot be looked at counts as present, and then fails to be read; but a directory that this user may not
		// search is not this user's configuration.
		if _, err := os.Lstat(f); err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return f
		}
	}
	return ""
}

// openAudit opens the audit file for appending. A new file is for its owner only: it names paths and arguments.
func (c *runOptions) openAudit(stderr io.Writer) (w io.Writer, path string, err error) {
	if c.audit == "-" {
		return stderr, "", nil
	}
	f, err := os.OpenFile(c.audit, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("audit file: %w", err)
	}
	return f, realPath(c.audit), nil
}

func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// report prints what the user should know of a run that did not go well.
func (c *runOptions) report(w io.Writer, r exec.Result) {
	if r.TimedOut {
		fmt.Fprintf(w, "sandlock-exec: timeout after %v\n", r.Duration.Round(100_000_000))
	}
	if r.LimitedCommand {
		fmt.Fprintf(w, "sandlock-exec: killed: the sandbox reached %s\n", r.Limit)
	} else if r.Limit != "" {
		fmt.Fprintf(w, "sandlock-exec: the sandbox reached %s: %d of its processes were killed\n", r.Limit, r.LimitKills)
	}
	reportBranch(w, r.Branch, c.quiet)
	if c.explain {
		printDenials(w, r.Denied)
		return
	}
	if r.Branch != nil && r.Branch.Code != 0 {
		return // that is why
	}
	if r.Code != 0 && !r.TimedOut && !r.LimitedCommand && !c.quiet {
		policy := c.artifact
		if policy != "" {
			policy += " "
		}
		fmt.Fprintf(w, "sandlock-exec: the command failed (%s); if the policy refused it something, --explain-denials says what: sandlock-exec --explain-denials %s-- …\n",
			status(r), policy)
	}
}

// reportBranch says what became of the changes, unless they are where they belong.
func reportBranch(w io.Writer, b *exec.BranchResult, quiet bool) {
	if b != nil && b.Full {
		fmt.Fprintln(w, "sandlock-exec: the sandbox reached limits.disk: its changes had no room left")
	}
	switch {
	case b == nil || b.Review && b.Err == nil:
	case b.Err != nil:
		fmt.Fprintf(w, "sandlock-exec: %v\n", b.Err)
		if hint := branchHint(b.Err, b.Dir); hint != "" {
			fmt.Fprintf(w, "\thint: %s\n", hint)
		}
	case b.Action == ir.BranchKeep && b.Kind == ir.BranchFS:
		fmt.Fprintf(w, "sandlock-exec: the changes are kept in %s\n\thint: %s\n", quoteName(b.Dir), settleHint(b.Dir, "applies the changes"))
	case b.Action == ir.BranchKeep:
		fmt.Fprintf(w, "sandlock-exec: the changes are kept: sandlock-exec branch show %s\n", shellWord(b.Dir))
	case b.Action == ir.BranchAbort && !quiet:
		fmt.Fprintln(w, "sandlock-exec: the changes are dropped")
	}
}

func status(r exec.Result) string {
	if r.Signal != 0 {
		return fmt.Sprintf("signal %d", r.Signal)
	}
	return fmt.Sprintf("exit code %d", r.Code)
}

func printDenials(w io.Writer, list []exec.Denial) {
	if len(list) == 0 {
		fmt.Fprintln(w, "sandlock-exec: the policy refused nothing that was observed")
		return
	}
	for _, d := range list {
		fmt.Fprintf(w, "sandlock-exec: %v\n", d)
	}
}
