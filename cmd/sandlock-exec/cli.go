package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sandlock-go/sandlock/exec"
)

// The command line is parsed with package flag: linking a parser library cost every start of a sandbox a tenth of its
// time (0.35 ms of package initialisation, measured), and this program's flags are few.

// version is set by the linker (-X main.version=…).
var version = "devel"

const usage = `Usage: sandlock-exec [flags] [p.sbx] -- command [arguments…]
       sandlock-exec check [--json] [--cgroup DIR] [p.sbx]
       sandlock-exec ports [--json]
       sandlock-exec txn [flags] STAGES.json
       sandlock-exec branch [list|show|diff|commit|abort|recover] …
       sandlock-exec version

Run a command in a sandbox that a sealed policy describes. Without p.sbx the built-in default policy holds: read-only
system directories, the working directory writable, a private TMPDIR, no network. Without a command the policy's own
(program.exec) is run.

Flags:
  -p NAME=VALUE            bind a parameter that the policy declares; repeatable
  --timeout DURATION       end the command after this time, such as 90s or 5m (exit code 124); narrows limits.time
  --audit FILE             append one JSON line for each denied or notable event to FILE; "-" is standard error
  --explain-denials        watch what the policy refuses, also the file accesses that Landlock refuses silently, and
                           report it at the end; slower
  --allowed-signers FILE   run only artifacts signed by a signer in this ssh-keygen(1) file; also demanded by
                           /etc/sandlock/allowed_signers and ~/.config/sandlock/allowed_signers where they exist
  --cgroup DIR             with limits.backend "cgroup": make the sandbox's control group beneath this one, not beneath
                           the one that sandlock-exec was started in; no process may be in it
  --dry-run                make no change to the working directory that the policy keeps a branch of (filesystem.workdir):
                           print what would have been changed, after the command's own output
  --json                   with --dry-run: one JSON object for each change, a line each
  --diff                   with --dry-run: also what has changed in files, as a unified diff
  -q, --quiet              no hint when the command fails

check prints what this host offers a sandbox and, given an artifact, what it would miss here. ports prints, for each
of your sandboxes with virtual ports (network.port_remap), the ports that it has bound and the host's ports behind them. txn runs
several commands on one branch of a working directory, all or nothing; branch looks after changes of working directories that
were kept: see sandlock-exec txn --help, sandlock-exec branch --help.

Exit codes: the command's own; 128+N when signal N ended it; 124 time limit; 125 the sandbox could not be set up;
126 the command cannot be executed; 127 it is not found. Where the command succeeded and its changes could not be applied:
75 somebody else has changed the same, or is at it; 74 they could not be written. They are kept, and nothing is half done.
`

// streams are where a subcommand reads and writes, and what stood right of "--".
type streams struct {
	in       io.Reader
	out, err io.Writer
	command  []string
	dashes   bool // "--" was there
	usage    string
}

// exitCode is an error that only sets the exit code: what there is to say has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run(args []string, in io.Reader, out, errOut io.Writer) int {
	s := &streams{in: in, out: out, err: errOut, usage: usage}
	if i := slices.Index(args, "--"); i >= 0 {
		args, s.command, s.dashes = args[:i], args[i+1:], true
	}
	return fail(errOut, s.dispatch(args))
}

func (s *streams) dispatch(args []string) error {
	if len(args) > 0 && !s.dashes {
		switch args[0] {
		case "check":
			return runCheck(s, args[1:])
		case "ports":
			return runPorts(s, args[1:])
		case "txn":
			return runTxn(s, args[1:])
		case "branch":
			return runBranch(s, args[1:])
		case "version", "--version":
			_, err := fmt.Fprintf(s.out, "sandlock-exec %s\n", version)
			return err
		case "help":
			_, err := io.WriteString(s.out, usage)
			return err
		}
	}
	return runSandbox(s, args)
}

// newFlags returns a flag set that reports mistakes through its error alone.
func newFlags() *flag.FlagSet {
	f := flag.NewFlagSet("sandlock-exec", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse parses the flags, which may stand before and after the one positional argument.
func parse(s *streams, f *flag.FlagSet, args []string) (positional string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				_, err = io.WriteString(s.out, s.usage)
				return "", errors.Join(exitCode(0), err)
			}
			return "", fmt.Errorf("%w (try sandlock-exec --help)", err)
		}
		if f.NArg() == 0 {
			return positional, nil
		}
		if positional != "" {
			return "", fmt.Errorf("unexpected argument %q: the command stands right of -- (try sandlock-exec --help)", f.Arg(0))
		}
		positional, args = f.Arg(0), f.Args()[1:]
	}
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
	if hint := branchHint(err, ""); hint != "" {
		fmt.Fprintf(w, "\thint: %s\n", hint)
	}
	var c *exec.CommandError
	if errors.As(err, &c) {
		if c.Hint != "" {
			fmt.Fprintf(w, "\thint: %s\n", c.Hint)
		}
		return c.Code
	}
	return exec.CodeSetup
}

// params collects -p NAME=VALUE.
type params map[string]string

func (p params) String() string { return "" }

func (p params) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return fmt.Errorf("want NAME=VALUE, got %q", s)
	}
	if _, twice := p[name]; twice {
		return fmt.Errorf("parameter %q is given twice", name)
	}
	p[name] = value
	return nil
}

// runOptions are the flags of a run.
type runOptions struct {
	artifact       string
	params         params
	timeout        time.Duration
	audit          string
	explain        bool
	allowedSigners string
	quiet          bool
	cgroup         string
	dryRun         bool
	changes        changeFormat
}

// define defines the flags.
func (o *runOptions) define(f *flag.FlagSet) {
	f.Var(o.params, "p", "")
	f.Var(o.params, "param", "")
	f.DurationVar(&o.timeout, "timeout", 0, "")
	f.StringVar(&o.audit, "audit", "", "")
	f.BoolVar(&o.explain, "explain-denials", false, "")
	f.StringVar(&o.allowedSigners, "allowed-signers", "", "")
	f.StringVar(&o.cgroup, "cgroup", "", "")
	f.BoolVar(&o.dryRun, "dry-run", false, "")
	f.BoolVar(&o.changes.json, "json", false, "")
	f.BoolVar(&o.changes.diff, "diff", false, "")
	f.BoolVar(&o.quiet, "q", false, "")
	f.BoolVar(&o.quiet, "quiet", false, "")
}

func runSandbox(s *streams, args []string) error {
	o := runOptions{params: params{}}
	f := newFlags()
	o.define(f)
	var err error
	if o.artifact, err = parse(s, f, args); err != nil {
		return err
	}
	if o.timeout < 0 {
		return fmt.Errorf("--timeout %v is negative", o.timeout)
	}
	if err := o.changes.settle(o.dryRun); err != nil {
		return err
	}
	if !s.dashes {
		if o.artifact == "" {
			return errors.New("no command: write it after -- (try sandlock-exec --help)")
		}
		if st, err := os.Stat(o.artifact); err != nil || st.IsDir() {
			return fmt.Errorf("%s is taken for an artifact and is none; write a command after -- (try sandlock-exec --help)", o.artifact)
		}
	}
	return o.run(s)
}
