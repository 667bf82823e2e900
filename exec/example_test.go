package exec_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// A command under the built-in default policy: the system is read-only, nothing beyond the working directory can be
// written, there is no network.
func ExampleArtifact_Command() {
	policy, err := exec.Default() // or exec.Load("p.sbx", exec.AllowedSigners("signers"))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := policy.Command(ctx, "sh", "-c", "echo hello; cat /etc/shadow").Output()
	fmt.Printf("%s", out)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		fmt.Println("code", exit.Status.Code)
		fmt.Print(strings.ToLower(string(exit.Stderr)))
	}
	// Output:
	// hello
	// code 1
	// cat: /etc/shadow: permission denied
}

// Streams work as in os/exec.
func ExampleCmd_Start() {
	policy, err := exec.Default()
	if err != nil {
		log.Fatal(err)
	}
	cmd := policy.Command(context.Background(), "tr", "a-z", "A-Z")
	cmd.Stdout = os.Stdout
	in, err := cmd.StdinPipe()
	if err != nil {
		log.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(in, "hello")
	in.Close()
	if err := cmd.Wait(); err != nil {
		log.Fatal(err)
	}
	// Output: HELLO
}

// Two commands, under policies of their own, whose changes to one directory land together or not at all. Both policies name it as
// filesystem.workdir.
func ExampleTransaction() {
	ctx := context.Background()
	fetch, err := exec.Load("/etc/sandlock/fetch.sbx")
	if err != nil {
		log.Fatal(err)
	}
	build, err := exec.Load("/etc/sandlock/build.sbx")
	if err != nil {
		log.Fatal(err)
	}
	t := exec.Transaction{
		Stages: []exec.Stage{
			{Cmd: fetch.Command(ctx, "npm", "ci")},
			{Cmd: build.Command(ctx, "make", "-j4")},
		},
		Timeout: 10 * time.Minute,
		Changes: true,
	}
	result, err := t.Run(ctx)
	var abort *exec.AbortError
	switch {
	case errors.As(err, &abort) && abort.Stage >= 0:
		log.Fatalf("%v: nothing was changed\n%s", err, result.Stages[abort.Stage].Stderr)
	case err != nil:
		log.Fatal(err)
	}
	for _, c := range result.Changes {
		fmt.Printf("%c %s\n", c.Kind, c.Path)
	}
}

// A handler of the program looks at calls that the policy allows, and can refuse or answer them.
func ExampleCmd_Handle() {
	policy, err := exec.Default()
	if err != nil {
		log.Fatal(err)
	}
	cmd := policy.Command(context.Background(), "cat", "/no/such/file")
	cmd.Stdout = os.Stdout
	err = cmd.Handle(unix.SYS_OPENAT, func(c *exec.Call) exec.Verdict {
		path, err := c.Path(1)
		if err != nil {
			return supervise.FromError(err)
		}
		if path == "/no/such/file" {
			return exec.Content([]byte("made up\n"))
		}
		return supervise.Next()
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := cmd.Run(); err != nil {
		log.Fatal(err)
	}
	// Output: made up
}

// A policy that a running process cannot have is refused, field by field.
func ExampleConfine() {
	policy, err := exec.Default()
	if err != nil {
		log.Fatal(err)
	}
	var cannot *exec.UnconfinableError
	if err := exec.Confine(policy, exec.ConfineOptions{}); errors.As(err, &cannot) {
		fmt.Println(cannot.Fields[0])
	}
	// Output: a supervisor (write program.no_supervisor: true)
}
