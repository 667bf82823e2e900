package memory

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What the executor thinks of files in memory, on the real kernel: this process stands for the program.
func TestMemfds(t *testing.T) {
	const sealed = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK
	check := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, fd int)
		used uint64 // of a megabyte that was written
		kept int
	}{
		{"open", func(*testing.T, int) {}, mb, 1},
		{"closed", func(t *testing.T, fd int) { check(t, unix.Close(fd)) }, 0, 0},
		{"mapped and closed", func(t *testing.T, fd int) {
			p, err := unix.Mmap(fd, 0, mb, unix.PROT_READ, unix.MAP_SHARED)
			check(t, err)
			check(t, unix.Close(fd))
			t.Cleanup(func() { _ = unix.Munmap(p) })
		}, mb, 1},
		{"opened again and closed", func(t *testing.T, fd int) {
			again, err := unix.Open(ownPath(fd), unix.O_RDONLY, 0)
			check(t, err)
			check(t, unix.Close(fd))
			t.Cleanup(func() { _ = unix.Close(again) })
		}, mb, 1},
		{"unlocked", func(t *testing.T, fd int) {
			check(t, unix.Flock(fd, unix.LOCK_UN))
			t.Cleanup(func() {
				if _, err := unix.Pwrite(fd, []byte{1}, 0); err == nil {
					t.Error("it can be written still")
				}
			})
		}, 0, 0},
		{"sealed", func(t *testing.T, fd int) {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sealed)
			check(t, err)
		}, mb, 1},
		{"sealed and closed", func(t *testing.T, fd int) {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sealed)
			check(t, err)
			check(t, unix.Close(fd))
		}, 0, 0},
		{"sealed and unlocked", func(t *testing.T, fd int) {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sealed)
			check(t, err)
			check(t, unix.Flock(fd, unix.LOCK_UN))
		}, mb, 1},
		{"sealed against sealing and closed", func(t *testing.T, fd int) {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sealed|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
			check(t, err)
			check(t, unix.Close(fd))
		}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var m memfds
			limit := &limit{}
			fd, err := m.create("test", 0, []charge{{limit: limit}})
			check(t, err)
			if _, err := unix.Write(fd, make([]byte, mb)); err != nil {
				t.Fatal(err)
			}
			tc.do(t, fd)
			for range 2 {
				limit.memfds = 0
				if m.sweep(); limit.memfds != tc.used || m.number() != tc.kept {
					t.Errorf("%d bytes in %d files, want %d in %d", limit.memfds, m.number(), tc.used, tc.kept)
				}
			}
		})
	}
}
