package main

import (
	"encoding/hex"

	"golang.org/x/sys/unix"
)

// handleCommands reach a file by its handle, which needs no path and so no grant of Landlock's on the way.
var handleCommands = []command{
	{"handle", "PATH", 1, func(args []string) outcome {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, args[0], 0)
		if err != nil {
			return result(err)
		}
		return value("%d %s", handle.Type(), hex.EncodeToString(handle.Bytes()))
	}},
	{"open-handle", "MOUNT TYPE HEX", 3, func(args []string) outcome {
		bytes, err := hex.DecodeString(args[2])
		if err != nil {
			return failedAt("decode", err)
		}
		mount, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return failedAt("mount", err)
		}
		_, err = unix.OpenByHandleAt(mount, unix.NewFileHandle(int32(number(args[1])), bytes), unix.O_RDONLY)
		return result(err)
	}},
}
