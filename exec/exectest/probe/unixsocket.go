package main

import (
	"golang.org/x/sys/unix"
)

// unixCommands reach local sockets; a NAME that begins with "@" is abstract.
var unixCommands = []command{
	{"unix-connect", "TYPE NAME", 2, func(args []string) outcome {
		fd, err := unix.Socket(unix.AF_UNIX, number(args[0]), 0)
		if err != nil {
			return failedAt("socket", err)
		}
		return result(unix.Connect(fd, &unix.SockaddrUnix{Name: args[1]}))
	}},
	{"unix-bind", "TYPE NAME", 2, func(args []string) outcome {
		fd, err := unix.Socket(unix.AF_UNIX, number(args[0]), 0)
		if err != nil {
			return failedAt("socket", err)
		}
		return result(unix.Bind(fd, &unix.SockaddrUnix{Name: args[1]}))
	}},
	{"unix-send", "NAME", 1, func(args []string) outcome {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			return failedAt("socket", err)
		}
		return result(unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: args[0]}))
	}},
	// A datagram socketpair is a socket that no socket(2) call made; it can be sent from to any address.
	{"pair-send", "NAME", 1, func(args []string) outcome {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			return failedAt("socketpair", err)
		}
		return result(unix.Sendto(pair[0], []byte("x"), 0, &unix.SockaddrUnix{Name: args[0]}))
	}},
	{"pair-connect", "NAME", 1, func(args []string) outcome {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			return failedAt("socketpair", err)
		}
		return result(unix.Connect(pair[0], &unix.SockaddrUnix{Name: args[0]}))
	}},
	{"fd-pass", "", 0, fdPass},
	{"recv-fd", "FD", 1, func(args []string) outcome {
		oob := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(number(args[0]), make([]byte, 8), oob, 0)
		if err != nil {
			return result(err)
		}
		return value("received=%t", n > 0)
	}},
}

// fdPass sends a descriptor to itself: what programs do over socketpair must go on working.
func fdPass([]string) outcome {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return failedAt("socketpair", err)
	}
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(pair[1]), nil, 0); err != nil {
		return failedAt("sendmsg", err)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, 0)
	if err != nil {
		return failedAt("recvmsg", err)
	}
	if n == 0 {
		return "value no descriptor"
	}
	return succeeded
}
