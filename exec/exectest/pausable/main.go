// Command pausable is sandlock-exec for tests of pausing: it runs an artifact's command, and pauses and resumes it as asked.
//
// In: an artifact, "--" and a command; on descriptor 3 lines "pause" or "resume". Out: on descriptor 4 one line for each,
// "ok" or the error; the command's exit code. It must never be shipped.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"

	"github.com/sandlock-go/sandlock/exec"
)

// The thread that clones the command must be the main one (exec.Run).
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 4 || os.Args[2] != "--" {
		fmt.Fprintln(os.Stderr, "usage: pausable p.sbx -- command [arguments…]")
		os.Exit(2)
	}
	os.Exit(run(os.Args[1], os.Args[3:]))
}

func run(path string, command []string) int {
	artifact, err := exec.Load(path)
	if err != nil {
		return fail(err)
	}
	var freezer exec.Freezer
	go serve(&freezer, os.NewFile(3, "requests"), os.NewFile(4, "answers"))
	result, err := exec.Run(exec.Options{Artifact: artifact, Command: command, Environ: os.Environ(), Freezer: &freezer})
	if err != nil {
		return fail(err)
	}
	return result.Code
}

func serve(f *exec.Freezer, requests, answers *os.File) {
	for lines := bufio.NewScanner(requests); lines.Scan(); {
		ask := f.Resume
		if lines.Text() == "pause" {
			ask = f.Pause
		}
		if err := ask(); err != nil {
			fmt.Fprintln(answers, err)
			continue
		}
		fmt.Fprintln(answers, "ok")
	}
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "pausable:", err)
	return exec.CodeSetup
}
