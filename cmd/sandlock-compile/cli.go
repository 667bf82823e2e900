package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/sandlock-go/sandlock/compiler"
)

// version is set by the linker (-X main.version=…).
var version = "devel"

// Exit codes.
const (
	codeFailed = 1
	codePolicy = 2
	codeUsage  = 64
	codeBug    = 70
)

type cli struct {
	Compile compileCmd `cmd:"" default:"withargs" help:"Compile a policy to a sealed artifact (the default)."`
	Vet     vetCmd     `cmd:"" help:"Report the mistakes in a policy, and write nothing."`
	Dump    dumpCmd    `cmd:"" help:"Print what a policy or an artifact says, as reviewers read it."`
	Golden  goldenCmd  `cmd:"" help:"Write or check the golden dumps of a folder of policies."`
	Test    testCmd    `cmd:"" help:"Run the tests section of a policy or an artifact against what was compiled."`
	Explain explainCmd `cmd:"" help:"Say whether an event may happen, and which rule decides."`
	Diff    diffCmd    `cmd:"" help:"Compare the dumps of two policies or artifacts (exit code 1 if they differ)."`
	Lock    lockCmd    `cmd:"" help:"Look up the names in a policy, and pin their addresses in its lock file."`
	Sign    signCmd    `cmd:"" help:"Sign an artifact with an SSH key, or attach a signature that ssh-keygen made."`
	Verify  verifyCmd  `cmd:"" help:"Check an artifact's seal, and that an allowed signer has signed it."`
	Schema  schemaCmd  `cmd:"" help:"Print the policy language: as CUE, JSON Schema or Markdown."`
	Init    initCmd    `cmd:"" help:"Write a commented policy to start from."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// codeError is an error that ends with a certain exit code. An empty message has been printed already.
type codeError struct {
	code int
	msg  string
}

func (e *codeError) Error() string { return e.msg }

func failed(format string, args ...any) error {
	return &codeError{codeFailed, fmt.Sprintf(format, args...)}
}

func run(args []string, in io.Reader, out, errOut io.Writer) int {
	s := &streams{in: in, out: out, err: errOut}
	var c cli
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("sandlock-compile"),
		kong.Description("Compile sandbox policies, and show what they mean."),
		kong.Writers(out, errOut), kong.Exit(func(code int) { exit = code }), kong.Bind(s), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return s.fail(&compiler.BugError{Pass: "command line", Err: err})
	}
	ctx, err := parser.Parse(args)
	if exit >= 0 {
		return exit // --help
	}
	if err != nil {
		return s.fail(&codeError{codeUsage, err.Error() + " (try sandlock-compile --help)"})
	}
	return s.fail(ctx.Run(s))
}

// fail prints an error the one way that errors are printed, and returns the exit code.
func (s *streams) fail(err error) int {
	var code *codeError
	var bug *compiler.BugError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &bug):
		fmt.Fprintf(s.err, "sandlock-compile: bug: %v\n%s", bug, bug.Stack)
		fmt.Fprintln(s.err, "This is a mistake in sandlock-compile, not in the policy. Please report it, with the policy if you can.")
		return codeBug
	case errors.As(err, &code):
		if code.msg != "" {
			fmt.Fprintf(s.err, "sandlock-compile: %s\n", code.msg)
		}
		return code.code
	}
	fmt.Fprintf(s.err, "sandlock-compile: %v\n", err)
	return codeFailed
}

type versionCmd struct{}

func (versionCmd) Run(s *streams) error {
	_, err := fmt.Fprintln(s.out, version)
	return err
}
