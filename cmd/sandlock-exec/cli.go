package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/sandlock-go/sandlock/exec"
)

// version is set by the linker (-X main.version=…).
var version = "devel"

// cli is the command line left of "--"; what stands right of it is the command and is never parsed.
type cli struct {
	Run     runCmd     `cmd:"" default:"withargs" help:"Run a command under a policy (the default)."`
	Check   checkCmd   `cmd:"" help:"Show what this host offers a sandbox, and what an artifact would miss on it."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

type runCmd struct {
	Artifact       string            `arg:"" optional:"" help:"Sealed policy (.sbx). Without it the built-in default policy: read-only system directories, the working directory writable, a private TMPDIR, no network." placeholder:"p.sbx"`
	Param          map[string]string `short:"p" placeholder:"NAME=VALUE" mapsep:"none" help:"Bind a parameter that the policy declares. Repeatable."`
	Timeout        time.Duration     `help:"End the command after this time, such as 90s or 5m (exit code 124). Narrows limits.time." placeholder:"DURATION"`
	Audit          string            `help:"Write one JSON line for each denied or notable event to FILE, or to standard error for '-'." placeholder:"FILE"`
	ExplainDenials bool              `help:"Watch what the policy refuses, including file accesses that Landlock refuses silently, and report it at the end. Slower."`
	AllowedSigners string            `help:"Run only artifacts signed by a principal of this ssh-keygen(1) allowed signers file." placeholder:"FILE"`
	Quiet          bool              `short:"q" help:"No hint when the command fails."`
}

type checkCmd struct {
	Artifact string `arg:"" optional:"" help:"Sealed policy (.sbx)."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

type versionCmd struct{}

// streams are where a subcommand reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	command  []string // right of "--"
	dashes   bool     // "--" was there
}

// exitCode carries an exit code through kong.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run(args []string, in io.Reader, out, errOut io.Writer) int {
	s := &streams{in: in, out: out, err: errOut}
	if i := slices.Index(args, "--"); i >= 0 {
		args, s.command, s.dashes = args[:i], args[i+1:], true
	}
	if len(args) == 1 && s.dashes && plainArtifact(args[0]) {
		return fail(errOut, (&runCmd{Artifact: args[0]}).Run(s))
	}
	var c cli
	done := -1
	parser, err := kong.New(&c,
		kong.Name("sandlock-exec"),
		kong.Description("Run a command in a sandbox described by a sealed policy."),
		kong.UsageOnError(), kong.Writers(out, errOut), kong.Exit(func(code int) { done = code }), kong.Bind(s),
		kong.Help(help),
	)
	if err != nil {
		return fail(errOut, fmt.Errorf("command line: %w", err))
	}
	ctx, err := parser.Parse(args)
	if done >= 0 {
		return done // --help
	}
	if err == nil {
		err = ctx.Run(s)
	} else {
		err = fmt.Errorf("%w (try sandlock-exec --help)", err)
	}
	return fail(errOut, err)
}

// plainArtifact recognises the command line that everybody writes, `sandlock-exec p.sbx -- …`. Building the parser for
// it would cost a start more than loading the artifact does.
func plainArtifact(arg string) bool {
	return strings.HasSuffix(arg, ".sbx") && !strings.HasPrefix(arg, "-")
}

func help(o kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(o, ctx); err != nil {
		return err
	}
	_, err := fmt.Fprint(ctx.Stdout, `
The command follows "--":  sandlock-exec p.sbx -- python3 script.py

Exit codes: the command's own; 128+N when signal N ended it; 124 time limit; 125 the sandbox could not be set up;
126 the command cannot be executed; 127 it is not found.
`)
	return err
}

// fail prints an error the one way that errors are printed, and returns its exit code.
func fail(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	fmt.Fprintf(w, "sandlock-exec: %s\n", strings.TrimSpace(err.Error()))
	var c *exec.CommandError
	if errors.As(err, &c) {
		if c.Hint != "" {
			fmt.Fprintf(w, "hint: %s\n", c.Hint)
		}
		return c.Code
	}
	return exec.CodeSetup
}

func (versionCmd) Run(s *streams) error {
	_, err := fmt.Fprintf(s.out, "sandlock-exec %s\n", version)
	return err
}

func (c *runCmd) Run(s *streams) error {
	if c.Artifact != "" && len(s.command) == 0 && !s.dashes && !looksLikeArtifact(c.Artifact) {
		return fmt.Errorf("%s is taken for a policy artifact; write a command after --", c.Artifact)
	}
	return c.run(s)
}

func looksLikeArtifact(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
