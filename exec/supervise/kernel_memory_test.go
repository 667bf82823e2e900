package supervise

import (
	"errors"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// places are the addresses that guestMemory asks with: the text at them, and how reading and writing there ends.
var places = []struct {
	name  string
	text  string // put so that it ends where the mapped memory ends
	where func(end uintptr, text string) uintptr
	path  string
	err   error
	bytes error // of reading 16 bytes
	write error // of writing one
}{
	{name: "ends with the page", text: "/etc/passwd\x00", path: "/etc/passwd", bytes: unix.EFAULT},
	{name: "bytes that are no text", text: "/\xff\xfe\x80/\x01\x00", path: "/\xff\xfe\x80/\x01", bytes: unix.EFAULT},
	{name: "empty", text: "\x00", path: "", bytes: unix.EFAULT},
	{name: "not terminated", text: "/etc/passwd", err: unix.EFAULT, bytes: unix.EFAULT},
	{name: "over a page", text: strings.Repeat("a", 4000) + "\x00" + strings.Repeat("b", 200), path: strings.Repeat("a", 4000)},
	{name: "longest", text: strings.Repeat("a", 4095) + "\x00", path: strings.Repeat("a", 4095)},
	{name: "too long", text: strings.Repeat("a", 4096) + "\x00", err: unix.ENAMETOOLONG},
	{name: "unmapped", where: func(end uintptr, _ string) uintptr { return end }, err: unix.EFAULT, bytes: unix.EFAULT, write: unix.EFAULT},
	{name: "null", where: func(uintptr, string) uintptr { return 0 }, err: unix.EFAULT, bytes: unix.EFAULT, write: unix.EFAULT},
	{name: "top", where: func(uintptr, string) uintptr { return ^uintptr(0) - 7 }, err: unix.EFAULT, bytes: unix.EFAULT, write: unix.EFAULT},
	{name: "kernel", where: func(uintptr, string) uintptr { return 0xffff888000000000 }, err: unix.EFAULT, bytes: unix.EFAULT, write: unix.EFAULT},
	{name: "no address", where: func(uintptr, string) uintptr { return 1 << 60 }, err: unix.EFAULT, bytes: unix.EFAULT, write: unix.EFAULT},
	{name: "read-only", where: func(uintptr, string) uintptr {
		return uintptr(unsafe.Pointer(unsafe.StringData(readOnly)))
	}, path: "/in the program's text", write: unix.EFAULT},
}

const readOnly = "/in the program's text\x00 and more"

// mapped is how much memory stands before an unmapped page.
const mapped = 4 * 4096

func guestMemory([]string) {
	b, err := unix.Mmap(-1, 0, mapped+4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	check(err)
	end := uintptr(unsafe.Pointer(&b[0])) + mapped
	if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, end, 4096, 0); errno != 0 {
		check(errno)
	}
	for i, p := range places {
		copy(b[mapped-len(p.text):mapped], p.text)
		addr := end - uintptr(len(p.text))
		if p.where != nil {
			addr = p.where(end, p.text)
		}
		must(0, 0, uintptr(i), addr)
	}
	// The supervisor may look again later, when this call has long been answered.
	b[0] = 'x'
	for range 2 {
		must(0, 0, uintptr(len(places)), uintptr(unsafe.Pointer(&b[0])))
	}
	if b[0] != 'x' {
		guestFails("memory was written on the strength of an answered call")
	}
	runtime.KeepAlive(b)
}

func TestKernelGuestMemory(t *testing.T) {
	var stale *Call
	serveGuest(t, "memory", nil, func(q int, c *Call) Verdict {
		if q < len(places) {
			checkPlace(t, q, c)
			return Return(0)
		}
		if stale == nil {
			first := *c
			stale = &first
			return Return(0)
		}
		// The same thread waits, by another notification: what was asked with the first is over.
		var b [1]byte
		if _, err := stale.Path(1); stale.Valid() || !errors.Is(err, unix.ESRCH) {
			t.Errorf("an answered call is valid: Path = %v, want ESRCH", err)
		}
		if err := stale.Bytes(stale.Args[1], b[:]); !errors.Is(err, unix.ESRCH) {
			t.Errorf("Bytes of an answered call = %v, want ESRCH", err)
		}
		if err := stale.Write(stale.Args[1], []byte("y")); !errors.Is(err, unix.ESRCH) {
			t.Errorf("Write for an answered call = %v, want ESRCH", err)
		}
		if err := c.Bytes(c.Args[1], b[:]); err != nil || b[0] != 'x' {
			t.Errorf("Bytes = %q, %v, want x", b, err)
		}
		return Return(0)
	}, nil)
	if stale == nil {
		t.Error("the guest did not ask")
	}
}

func checkPlace(t *testing.T, i int, c *Call) {
	want := places[i]
	if got, err := c.Path(1); got != want.path || !errors.Is(err, want.err) {
		t.Errorf("%s: Path = %.30q, %v; want %.30q, %v", want.name, got, err, want.path, want.err)
	}
	var b [16]byte
	if err := c.Bytes(c.Args[1], b[:]); !errors.Is(err, want.bytes) {
		t.Errorf("%s: Bytes = %v, want %v", want.name, err, want.bytes)
	}
	if err := c.Write(c.Args[1], []byte{'z'}); !errors.Is(err, want.write) {
		t.Errorf("%s: Write = %v, want %v", want.name, err, want.write)
	}
}

// guestIndex asks on several threads and in a child, which then ends.
func guestIndex([]string) {
	must(0, 0, 0)
	done := make(chan struct{})
	for range 3 {
		go func() {
			runtime.LockOSThread()
			must(0, 0, 0)
			done <- struct{}{}
		}()
		<-done
	}
	pid := spawn("ask", "1")
	must(0, 0, 2, uintptr(pid))
	check(syscall.Kill(pid, syscall.SIGKILL))
	wait(pid)
	must(0, 0, 3, uintptr(pid))
}
