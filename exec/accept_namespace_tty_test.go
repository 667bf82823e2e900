package exec_test

import (
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Numbers 94 to 96 in a PID namespace, whose processes the terminal knows by other numbers.
func Test_namespaces_supervisor_8_94_95_96_foreground(t *testing.T) {
	foreground(t, private(""))
}

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

// A person stops and continues a sandbox from a shell, and works in a shell inside. What is typed shows on the terminal too, so
// what is waited for must not be in it.
func Test_namespaces_job_control(t *testing.T) {
	bash := exectest.Program(t, "/bin/bash")
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		tty := exectest.NewPTY(t, u)
		p := exectest.Start(t, exectest.Opts{User: u, Args: []string{bash, "--norc", "--noprofile", "--noediting", "-i"}, TTY: tty, Dir: b.Work, Env: []string{"PATH=/usr/bin:/bin", "HOME=" + b.Work, "PS1=outer$ "}})
		tty.Expect(t, "outer$ ")
		run := exectest.Executor(t) + " -q " + artifact + " -- "

		tty.Type(t, run+`/bin/sh -c 'echo be''gun; while read line; do echo got-$line; done'`+"\n")
		tty.Expect(t, "begun\r\n")
		tty.Type(t, "one\n")
		tty.Expect(t, "got-one")
		for range 2 {
			tty.Type(t, ctrlZ)
			tty.Expect(t, "Stopped")
			tty.Expect(t, "outer$ ")
			tty.Type(t, "echo sh''ell\n")
			tty.Expect(t, "shell\r\n")
			tty.Type(t, "fg\n")
			tty.Expect(t, "read line") // bash shows what it continues
			tty.Type(t, "two\n")
			tty.Expect(t, "got-two")
		}
		tty.Type(t, ctrlC)
		tty.Expect(t, "outer$ ")
		tty.Type(t, "echo co''de $?\n")
		tty.Expect(t, "code 130")

		// In the background it asks for the terminal in vain, until it is brought forward.
		tty.Type(t, run+`/bin/sh -c 'read line; echo got-$line' &`+"\n")
		tty.Expect(t, "outer$ ")
		tty.Type(t, "sleep 0.3; jobs\n")
		tty.Expect(t, "Stopped")
		tty.Type(t, "fg\n")
		tty.Expect(t, "read line")
		tty.Type(t, "three\n")
		tty.Expect(t, "got-three")
		tty.Expect(t, "outer$ ")

		// A shell inside has jobs of its own.
		tty.Type(t, "PS1='inner$ ' "+run+bash+" --norc --noprofile --noediting -i\n")
		tty.Expect(t, "inner$ ")
		tty.Type(t, "sh -c 'echo slee''ping; while read line; do echo got-$line; done'\n")
		tty.Expect(t, "sleeping\r\n")
		tty.Type(t, ctrlZ)
		tty.Expect(t, "Stopped")
		tty.Expect(t, "inner$ ")
		tty.Type(t, "fg\n")
		tty.Expect(t, "read line")
		tty.Type(t, "four\n")
		tty.Expect(t, "got-four")
		tty.Type(t, ctrlC)
		tty.Expect(t, "inner$ ")
		tty.Type(t, "echo $? pid $$; tty | cut -c1-5\n")
		tty.Expect(t, "130 pid 2\r\n")
		tty.Expect(t, "/dev/\r\n")
		tty.Type(t, "exit 5\n")
		tty.Expect(t, "outer$ ")
		tty.Type(t, "echo co''de $?\n")
		tty.Expect(t, "code 5")
		tty.Type(t, "exit 3\n")
		if r := p.Wait(t); r.Code != 3 || strings.Contains(r.Stdout, "no job control") {
			t.Errorf("exit %d\n%s", r.Code, r.Stdout)
		}
	})
}
