package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/sandlock-go/sandlock/ir/abi"
)

const succeeded outcome = "ok"

// result is the outcome of an attempt that has only one step.
func result(err error) outcome {
	if err == nil {
		return succeeded
	}
	return outcome("errno " + errnoText(err))
}

// failedAt is the outcome of an attempt that ended at one of several steps.
func failedAt(step string, err error) outcome {
	return outcome(fmt.Sprintf("errno %s (%s)", errnoText(err), step))
}

func value(format string, args ...any) outcome {
	return outcome("value " + fmt.Sprintf(format, args...))
}

func errnoText(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return "none: " + err.Error()
	}
	if name, ok := abi.ErrnoName(abi.Errno(errno)); ok {
		return name
	}
	return strconv.Itoa(int(errno))
}

// number reads a decimal, hexadecimal or negative number, or the pid that "self" or "parent" stands for.
func number(text string) int {
	switch text {
	case "self":
		return os.Getpid()
	case "parent":
		return os.Getppid()
	}
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		fmt.Fprintf(os.Stderr, "probe: %q is no number\n", text)
		os.Exit(2)
	}
	return int(n)
}
