package cgroup

import (
	"fmt"
	"os"
	"syscall"
)

// Probe tries a controller: it makes a group with a limit beneath dir (see [Find]), starts a process in it, and removes
// it. The error says why groups cannot be limited.
func Probe(dir string, c Controller) (err error) {
	p, err := Find(dir, []Controller{c})
	if err != nil {
		return err
	}
	l := Limits{Memory: 64 << 20}
	if c == CPU {
		l = Limits{CPUPercent: 50}
	}
	g, err := p.New(l)
	if err != nil {
		return err
	}
	defer func() {
		if removed := g.Remove(); err == nil {
			err = removed
		}
	}()
	if err := g.Check(); err != nil {
		return err
	}
	if err := g.try(); err != nil {
		return fmt.Errorf("start a process in %s: %w", g.Dir(), err)
	}
	return nil
}

// try has a process be born in the group.
func (g *Group) try() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	attr := &os.ProcAttr{Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.FD()}}
	p, err := os.StartProcess("/proc/self/exe", []string{"sandlock-exec", "--version"}, attr)
	if err != nil {
		return err
	}
	_, err = p.Wait()
	return err
}
