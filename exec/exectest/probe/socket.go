package main

import (
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketCommands try every way to reach the network. ADDRESS is ip:port.
var socketCommands = []command{
	{"socket", "DOMAIN TYPE PROTOCOL", 3, func(args []string) outcome {
		_, err := unix.Socket(number(args[0]), number(args[1]), number(args[2]))
		return result(err)
	}},
	{"socketpair", "DOMAIN TYPE PROTOCOL", 3, func(args []string) outcome {
		_, err := unix.Socketpair(number(args[0]), number(args[1]), number(args[2]))
		return result(err)
	}},
	{"connect", "ADDRESS TYPE PROTOCOL", 3, func(args []string) outcome {
		return withSocket(args, unix.Connect)
	}},
	{"bind", "ADDRESS TYPE PROTOCOL", 3, func(args []string) outcome {
		return withSocket(args, unix.Bind)
	}},
	{"send", "ADDRESS TYPE PROTOCOL FLAGS", 4, func(args []string) outcome {
		return withSocket(args, func(fd int, to unix.Sockaddr) error {
			return unix.Sendto(fd, []byte("x"), number(args[3]), to)
		})
	}},
	{"sendmsg", "ADDRESS TYPE PROTOCOL FLAGS", 4, func(args []string) outcome {
		return withSocket(args, func(fd int, to unix.Sockaddr) error {
			return unix.Sendmsg(fd, []byte("x"), nil, to, number(args[3]))
		})
	}},
	{"sendmmsg", "ADDRESS TYPE PROTOCOL FLAGS", 4, sendmmsg},
	{"fastopen-connect", "ADDRESS", 1, func(args []string) outcome {
		return withSocket([]string{args[0], "1", "0"}, func(fd int, to unix.Sockaddr) error {
			// A kernel or filter that refuses the option leaves an ordinary connect, which is the same attempt.
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
			if err := unix.Connect(fd, to); err != nil {
				return err
			}
			_, err := unix.Write(fd, []byte("x"))
			return err
		})
	}},
	{"listen-unbound", "", 0, func([]string) outcome {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return failedAt("socket", err)
		}
		return result(unix.Listen(fd, 1))
	}},
}

func withSocket(args []string, use func(fd int, to unix.Sockaddr) error) outcome {
	domain, to := sockaddr(args[0])
	fd, err := unix.Socket(domain, number(args[1]), number(args[2]))
	if err != nil {
		return failedAt("socket", err)
	}
	return result(use(fd, to))
}

func sockaddr(text string) (domain int, address unix.Sockaddr) {
	ap := netip.MustParseAddrPort(text)
	if ap.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

type mmsghdr struct {
	header unix.Msghdr
	sent   uint32
	_      uint32
}

func sendmmsg(args []string) outcome {
	ap := netip.MustParseAddrPort(args[0])
	ip := ap.Addr().As4()
	name := []byte{unix.AF_INET, 0, byte(ap.Port() >> 8), byte(ap.Port()), ip[0], ip[1], ip[2], ip[3], 0, 0, 0, 0, 0, 0, 0, 0}
	data := []byte("x")
	iov := unix.Iovec{Base: &data[0], Len: 1}
	msg := mmsghdr{header: unix.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &iov, Iovlen: 1}}
	fd, err := unix.Socket(unix.AF_INET, number(args[1]), number(args[2]))
	if err != nil {
		return failedAt("socket", err)
	}
	_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 1, uintptr(number(args[3])), 0, 0)
	runtime.KeepAlive(&msg)
	return result(nilIfZero(errno))
}
