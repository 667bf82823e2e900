package kernel

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Watch knows which of some open files are still open anywhere, without keeping them open: an epoll instance drops a file
// when its last descriptor is closed (epoll(7), question 6), and tells in /proc what it still has.
type Watch struct{ epoll int }

// NewWatch makes a watch and proves that it can be read.
func NewWatch() (Watch, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return Watch{}, fmt.Errorf("epoll_create1: %w", err)
	}
	w := Watch{fd}
	if _, err := w.Open(); err != nil {
		w.Close()
		return Watch{}, err
	}
	return w, nil
}

// Add has the open file behind fd known by a number.
func (w Watch) Add(fd int, number uint64) error {
	event := unix.EpollEvent{Fd: int32(uint32(number)), Pad: int32(uint32(number >> 32))}
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &event)
}

// Open returns the numbers of the files that are open.
func (w Watch) Open() (map[uint64]bool, error) {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(w.epoll))
	if err != nil {
		return nil, err
	}
	return parseWatch(text)
}

// Close ends the watch.
func (w Watch) Close() { _ = unix.Close(w.epoll) }

// parseWatch reads what an epoll instance tells of itself (proc_pid_fdinfo(5)): lines such as
// "tfd:  5 events: 1d data: 7  pos:0 ino:1 sdev:9" behind lines about the descriptor.
func parseWatch(text []byte) (map[uint64]bool, error) {
	open := map[uint64]bool{}
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("tfd:")) {
			continue
		}
		fields := bytes.Fields(line)
		at := 0
		for at < len(fields) && string(fields[at]) != "data:" {
			at++
		}
		if at+1 >= len(fields) {
			return nil, fmt.Errorf("no data in %q", line)
		}
		n, err := strconv.ParseUint(string(fields[at+1]), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("data in %q: %w", line, err)
		}
		open[n] = true
	}
	return open, nil
}
