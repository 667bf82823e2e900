package exec

import (
	"bytes"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/handler/machine"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/stage"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// showFiles has the command see the files that the policy gives other contents. In a namespaced start they are mounted, so no
// open is looked at for them.
func (s *sandbox) showFiles() error {
	if _, err := s.view.Show("/etc/hostname", []byte(s.program.Name+"\n")); err != nil {
		return err
	}
	if s.mountsFiles() || !s.showsHosts() {
		hosts, err := s.view.Show("/etc/hosts", s.hostsContent())
		if err != nil {
			return err
		}
		if hosts == nil && s.program.View.Root != "" && len(s.pins.names) > 0 {
			s.notice("the command sees no /etc/hosts: the names of the policy's network are nowhere to be looked up (%s)", strings.Join(s.pins.names, ", "))
		}
	}
	if !s.mountsFiles() {
		return nil
	}
	if s.proxy != nil {
		for _, b := range s.proxy.bundles {
			if _, err := s.view.Show(b.path, b.content); err != nil {
				return err
			}
		}
	}
	if !s.program.Limits.MachineFiles {
		return nil
	}
	files, err := s.machineFiles(0, 0)
	if err != nil {
		return err
	}
	for _, f := range files {
		shown, err := s.view.Show(f.Path, f.Content)
		if err != nil {
			return err
		}
		if shown != nil && machine.Moves(f.Path) {
			s.moving = append(s.moving, shown)
		}
	}
	return nil
}

// mountsFiles reports whether files that have other contents for the command are mounted; otherwise their opens are notified.
func (s *sandbox) mountsFiles() bool { return s.view != nil && s.program.View.Shows() }

// hostsContent is what /etc/hosts says. Another root's own lines come first: what an image has put there belongs to it.
func (s *sandbox) hostsContent() []byte {
	ours := s.pins.HostsFile()
	if s.program.View.Root == "" {
		return ours
	}
	fd, err := s.root.Open("/etc/hosts", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return ours
	}
	f := os.NewFile(uintptr(fd), "/etc/hosts")
	defer f.Close()
	image, err := io.ReadAll(io.LimitReader(f, maxHosts))
	if err != nil {
		return ours
	}
	if n := len(image); n > 0 && image[n-1] != '\n' {
		image = append(image, '\n')
	}
	return append(image, missingHosts(image, ours)...)
}

// maxHosts bounds what is taken of another root's /etc/hosts, in bytes.
const maxHosts = 1 << 20

// missingHosts returns those lines that tell of an address and name which others do not.
func missingHosts(others, ours []byte) (missing []byte) {
	known := map[string]bool{}
	for line := range bytes.Lines(others) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		if fields := bytes.Fields(line); len(fields) > 1 {
			for _, name := range fields[1:] {
				known[string(fields[0])+" "+string(name)] = true
			}
		}
	}
	for line := range bytes.Lines(ours) {
		if !known[string(bytes.TrimSpace(line))] {
			missing = append(missing, line...)
		}
	}
	return missing
}

// machineFiles makes the files that tell of the machine, as the limits have it, for a thread, 0 for this one.
func (s *sandbox) machineFiles(tid int, used uint64) ([]machine.Snapshot, error) {
	l := &s.program.Limits
	mask := make([]byte, 1024)
	n, err := kernel.Affinity(tid, mask)
	if err != nil {
		return nil, err
	}
	mask = mask[:n]
	if tid == 0 && len(l.CPUCores) > 0 {
		clear(mask)
		for _, c := range l.CPUCores {
			if int(c)/8 < n {
				mask[c/8] |= 1 << (c % 8)
			}
		}
	}
	return machine.Snapshots(int(l.CPUCount), l.Memory, used, mask, tid != 0)
}

// freshness is how old what a moving file says may be.
const freshness = 250 * time.Millisecond

// refreshFiles keeps the files that move up to date.
func (s *sandbox) refreshFiles(child *stage.Child, loop *supervise.Loop, charged func() (uint64, int)) error {
	if len(s.moving) == 0 {
		return nil
	}
	var timer *supervise.Timer
	refresh := func() {
		used, _ := charged()
		files, err := s.machineFiles(child.PID, used)
		for _, shown := range s.moving {
			for _, f := range files {
				if err == nil && f.Path == shown.Path {
					err = shown.Write(f.Content)
				}
			}
		}
		if err == nil { // else the command is gone
			timer.Set(freshness)
		}
	}
	timer, err := supervise.NewTimer(loop, refresh)
	if err != nil {
		return err
	}
	timer.Set(freshness)
	return nil
}
