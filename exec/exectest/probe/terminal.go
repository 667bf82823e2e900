package main

import (
	"bytes"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// terminalCommands look at the controlling terminal, which is descriptor 0.
var terminalCommands = []command{
	{"foreground", "", 0, func([]string) outcome { return isForeground() }},
	{"foreground-file", "FILE SECONDS", 2, func(args []string) outcome {
		if err := os.WriteFile(args[0]+".new", []byte(isForeground()), 0o644); err != nil {
			return failedAt("write", err)
		}
		if err := os.Rename(args[0]+".new", args[0]); err != nil {
			return failedAt("rename", err)
		}
		time.Sleep(time.Duration(number(args[1])) * time.Second)
		return succeeded
	}},
	{"tty-parent", "captured|interactive|terminate=FILE COMMAND…", 2, ttyParent},
}

func isForeground() outcome {
	owner, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	if err != nil {
		return failedAt("TIOCGPGRP", err)
	}
	return value("foreground=%t", owner == unix.Getpgrp())
}

// ttyParent plays the program that starts a sandbox from a terminal, and tells who owns the terminal before,
// while the command runs (terminate: what the command wrote to FILE, before SIGTERM), and after.
func ttyParent(args []string) outcome {
	before := isForeground()
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stdin = os.Stdin
	var captured bytes.Buffer
	mode, file, _ := bytes.Cut([]byte(args[0]), []byte("="))
	if string(mode) == "captured" {
		cmd.Stdout, cmd.Stderr = &captured, &captured
	} else {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return failedAt("start", err)
	}
	during := "unseen"
	if string(mode) == "terminate" {
		for range 1000 {
			if seen, err := os.ReadFile(string(file)); err == nil {
				during = string(seen)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		_ = cmd.Process.Signal(unix.SIGTERM)
	}
	err := cmd.Wait()
	during += " " + captured.String()
	return value("before: %s; during: %q; after: %s; exit: %v", before, during, isForeground(), err)
}
