package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/audit"
)

func (c *runCmd) run(s *streams) error {
	artifact, err := c.load()
	if err != nil {
		return err
	}
	o := exec.Options{
		Artifact: artifact,
		Command:  s.command,
		Params:   c.Param,
		Environ:  os.Environ(),
		Timeout:  c.Timeout,
		Explain:  c.ExplainDenials,
	}
	if c.Artifact != "" {
		o.Guarded = append(o.Guarded, realPath(c.Artifact))
	}
	if c.Audit != "" {
		w, path, err := c.openAudit(s.err)
		if err != nil {
			return err
		}
		if path != "" {
			o.Guarded = append(o.Guarded, path)
		}
		o.Audit = audit.New(w, "sha256:"+artifact.Digest, artifact.Program.Name)
	}
	result, err := exec.Run(o)
	if err != nil {
		return err
	}
	c.report(s.err, result)
	return exitCode(result.Code)
}

func (c *runCmd) load() (*exec.Artifact, error) {
	if c.Artifact == "" {
		if c.AllowedSigners != "" {
			return nil, fmt.Errorf("--allowed-signers needs an artifact: the built-in default policy carries no signature")
		}
		return exec.Default()
	}
	return exec.Load(c.Artifact, c.AllowedSigners)
}

// openAudit opens the audit file for appending. A new file is for its owner only: it names paths and arguments.
func (c *runCmd) openAudit(stderr io.Writer) (w io.Writer, path string, err error) {
	if c.Audit == "-" {
		return stderr, "", nil
	}
	f, err := os.OpenFile(c.Audit, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("audit file: %w", err)
	}
	return f, realPath(c.Audit), nil
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
func (c *runCmd) report(w io.Writer, r exec.Result) {
	if r.TimedOut {
		fmt.Fprintf(w, "sandlock-exec: timeout after %v\n", r.Duration.Round(100_000_000))
	}
	if c.ExplainDenials {
		printDenials(w, r.Denied)
		return
	}
	if r.Code != 0 && !r.TimedOut && !c.Quiet {
		policy := c.Artifact
		if policy != "" {
			policy += " "
		}
		fmt.Fprintf(w, "sandlock-exec: the command failed (%s); if the policy refused it something, --explain-denials says what: sandlock-exec --explain-denials %s-- …\n",
			status(r), policy)
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
		fmt.Fprintf(w, "sandlock-exec: denied %s: %s", d.What, d.Verdict)
		if d.Why != "" {
			fmt.Fprintf(w, ": %s", d.Why)
		}
		if d.Rule != "" {
			fmt.Fprintf(w, "; closest is %s", d.Rule)
		}
		if d.Count > 1 {
			fmt.Fprintf(w, " (%d times)", d.Count)
		}
		fmt.Fprintln(w)
	}
}
