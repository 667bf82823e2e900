package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// netlinkCommands ask rtnetlink, and try to change what it tells of.
var netlinkCommands = []command{
	{"interfaces", "", 0, func([]string) outcome {
		list, err := net.Interfaces()
		if err != nil {
			return result(err)
		}
		var words []string
		for _, i := range list {
			words = append(words, i.Name, i.Flags.String())
			addresses, err := i.Addrs()
			if err != nil {
				return failedAt("addresses", err)
			}
			for _, a := range addresses {
				words = append(words, a.String())
			}
		}
		return value("%s", strings.Join(words, " "))
	}},
	{"netlink-change", "sendto|sendmsg|write KIND", 2, func(args []string) outcome {
		body := make([]byte, 16)
		body[0], body[1] = unix.AF_INET, 32 // as ifaddrmsg
		binary.NativeEndian.PutUint32(body[4:], 1)
		return withNetlink(0, func(fd int) error { return askNetlink(fd, args[0], uint16(number(args[1])), body) })
	}},
	{"netlink-link", "NAME", 1, func(args []string) outcome {
		body := make([]byte, unix.SizeofIfInfomsg, 64)
		body = binary.NativeEndian.AppendUint16(body, uint16(unix.SizeofRtAttr+len(args[0])))
		body = binary.NativeEndian.AppendUint16(body, unix.IFLA_IFNAME)
		body = append(body, args[0]...)
		return withNetlink(0, func(fd int) error { return askNetlink(fd, "sendto", unix.RTM_GETLINK, body) })
	}},
	// As musl does: without bind, and without waiting for the answer.
	{"netlink-nowait", "", 0, func([]string) outcome {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		if err != nil {
			return failedAt("socket", err)
		}
		for i, kind := range []uint16{unix.RTM_GETLINK, unix.RTM_GETADDR} {
			b := binary.NativeEndian.AppendUint32(nil, 20)
			b = binary.NativeEndian.AppendUint16(b, kind)
			b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
			b = append(binary.NativeEndian.AppendUint32(b, uint32(i+1)), make([]byte, 8)...)
			if err := unix.Sendto(fd, b, 0, nil); err != nil {
				return failedAt("send", err)
			}
			if _, _, err := unix.Recvfrom(fd, make([]byte, 8192), unix.MSG_DONTWAIT); err != nil {
				return failedAt("recv", err)
			}
		}
		return succeeded
	}},
	{"netlink-flags", "TYPE", 1, netlinkFlags},
	{"netlink-cycles", "COUNT", 1, func(args []string) outcome {
		for range number(args[0]) {
			if got := withNetlink(0, func(int) error { return nil }); got != succeeded {
				return got
			}
		}
		return succeeded
	}},
	{"netlink-hoard", "COUNT", 1, func(args []string) outcome {
		for range number(args[0]) {
			if _, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE); err != nil {
				return result(err)
			}
		}
		return succeeded
	}},
	// The socket is the standard input of a child, which asks it.
	{"netlink-inherit", "", 0, func([]string) outcome {
		return withNetlink(0, func(fd int) error {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			process, err := os.StartProcess("/proc/self/exe", []string{"probe", "netlink-stdin"}, &os.ProcAttr{
				Files: []*os.File{os.NewFile(uintptr(fd), "netlink"), w, os.Stderr},
			})
			if err != nil {
				return err
			}
			w.Close()
			var b [64]byte
			n, _ := r.Read(b[:])
			if _, err := process.Wait(); err != nil {
				return err
			}
			if got := outcome(bytes.TrimSpace(b[:n])); got != succeeded {
				return errors.New(string(got))
			}
			return nil
		})
	}},
	{"netlink-stdin", "", 0, func([]string) outcome {
		return result(askNetlink(0, "write", unix.RTM_GETLINK, []byte{4: 1, 15: 0}))
	}},
}

func withNetlink(flags int, use func(fd int) error) outcome {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|flags, unix.NETLINK_ROUTE)
	if err != nil {
		return failedAt("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return failedAt("bind", err)
	}
	return result(use(fd))
}

// askNetlink makes a request and returns the error that comes as the answer.
func askNetlink(fd int, how string, kind uint16, body []byte) error {
	const sequence = 7
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = append(append(b, 0, 0, 0, 0), body...)
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	var err error
	switch how {
	case "sendto":
		err = unix.Sendto(fd, b, 0, kernel)
	case "sendmsg":
		err = unix.Sendmsg(fd, b, nil, kernel, 0)
	default:
		_, err = unix.Write(fd, b)
	}
	if err != nil {
		return err
	}
	reply := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint32(reply[8:]) != sequence {
		return errors.New("a reply to something else")
	}
	if binary.NativeEndian.Uint16(reply[4:]) != unix.NLMSG_ERROR {
		return nil
	}
	if e := -int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); e != 0 {
		return unix.Errno(e)
	}
	return nil
}

// netlinkFlags tells which of the flags that a socket was asked for it has, and how it names itself.
func netlinkFlags(args []string) outcome {
	fd, err := unix.Socket(unix.AF_NETLINK, number(args[0]), unix.NETLINK_ROUTE)
	if err != nil {
		return failedAt("socket", err)
	}
	status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return failedAt("F_GETFL", err)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		return failedAt("F_GETFD", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return failedAt("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return failedAt("getsockname", err)
	}
	address, ok := name.(*unix.SockaddrNetlink)
	return value("nonblock %t cloexec %t netlink %t own pid %t", status&unix.O_NONBLOCK != 0, own&unix.FD_CLOEXEC != 0,
		ok, ok && int(address.Pid) == os.Getpid())
}
