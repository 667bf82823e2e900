package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const hybrid = `22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 /a\040b /mnt/with\040space\134 rw,relatime master:1 propagate_from:2 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`

func TestParseMounts(t *testing.T) {
	got, err := parseMounts(hybrid)
	want := []mount{
		{"/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory"},
		{"/a b", `/mnt/with space\`, "cgroup", "rw,cpu,cpuacct"},
		{"/", "/sys/fs/cgroup/unified", "cgroup2", "rw"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"22 1 254:1 / /\n", "22 1 0:1 / - cgroup2 c rw\n", "22 1 0:1 / / rw - cgroup2\n"} {
		if got, err := parseMounts(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
}

func TestParseOwn(t *testing.T) {
	for _, tc := range []struct {
		text, want string
		ok         bool
	}{
		{"0::/user.slice/a.scope\n", "/user.slice/a.scope", true},
		{"4:memory:/x\n0::/\n", "/", true},
		{"4:memory:/x\n", "", false},
		{"10::/x\n", "", false},
		{"0::\n", "", false},
	} {
		if got, ok := parseOwn(tc.text); got != tc.want || ok != tc.ok {
			t.Errorf("%q: %q, %v, want %q, %v", tc.text, got, ok, tc.want, tc.ok)
		}
	}
}

func TestParseKilled(t *testing.T) {
	for _, tc := range []struct {
		text string
		want uint64
		err  string
	}{
		{"low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 0\n", 3, ""},
		{"max 0\noom 0\noom_kill 3\n", 0, ""}, // by a group above, or the machine
		{"oom 0\n", 0, "no oom_kill"},
		{"oom_kill\n", 0, "malformed"},
		{"oom_kill -1\n", 0, "malformed"},
	} {
		got, err := parseKilled([]byte(tc.text))
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: %d, %v, want %d, %q", tc.text, got, err, tc.want, tc.err)
		}
	}
}

func TestLimitsControllers(t *testing.T) {
	for _, tc := range []struct {
		limits Limits
		want   []Controller
	}{{Limits{}, nil}, {Limits{Memory: 1}, []Controller{Memory}}, {Limits{1, 1}, []Controller{Memory, CPU}}} {
		if got := tc.limits.Controllers(); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.limits, got, tc.want)
		}
	}
}

// tree is a hierarchy made of ordinary files, with this process in the group at own.
func tree(t *testing.T, own string, files map[string]string) (root string, h host) {
	t.Helper()
	dir := t.TempDir()
	root = filepath.Join(dir, "mnt")
	put := func(path, content string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(dir, "proc/self/cgroup"), "0::"+own+"\n")
	put(filepath.Join(dir, "proc/self/mountinfo"), strings.ReplaceAll(hybrid, "/sys/fs/cgroup/unified", root))
	for path, content := range files {
		put(filepath.Join(root, path), content)
	}
	return root, host{proc: filepath.Join(dir, "proc"), pid: 42, isGroup: func(dir string) bool { return strings.HasPrefix(dir, root) }}
}

func TestFind(t *testing.T) {
	group := func(kind, procs, control string) map[string]string {
		return map[string]string{
			"a/cgroup.controllers": "cpu memory pids\n", "a/cgroup.type": kind, "a/cgroup.procs": procs, "a/cgroup.subtree_control": control,
			"a/" + leafName + "/cgroup.procs": "",
		}
	}
	for _, tc := range []struct {
		name, own, dir string
		files          map[string]string
		controls, leaf string // what the files hold afterwards
		err            string
	}{
		{name: "alone", own: "/a", files: group("domain\n", "42\n", ""), controls: "+memory +cpu", leaf: "0"},
		{name: "empty", own: "/a", files: group("domain\n", "", ""), controls: "+memory +cpu"},
		{name: "half", own: "/a", files: group("domain\n", "", "cpu\n"), controls: "+memory"},
		{name: "enabled already", own: "/a", files: group("domain\n", "", "cpu memory\n"), controls: "cpu memory\n"},
		{name: "in the leaf", own: "/a/" + leafName, files: group("domain\n", "", "memory cpu\n"), controls: "memory cpu\n"},
		{name: "named", own: "/b", dir: "a", files: group("domain\n", "", ""), controls: "+memory +cpu"},
		{name: "others", own: "/a", files: group("domain\n", "1\n42\n7\n", ""), err: "holds 2 other processes"},
		{name: "threaded", own: "/a", files: group("domain threaded\n", "", ""), err: "is a group of threads (domain threaded)"},
		{name: "no controllers", own: "/a", files: map[string]string{"a/cgroup.controllers": "pids\n"}, err: "no memory controller: it is bound to the cgroup v1 hierarchy at /sys/fs/cgroup/memory"},
		{name: "one controller", own: "/a", files: map[string]string{"a/cgroup.controllers": "memory\n"}, err: "no cpu controller: it is bound"},
		{name: "outside of the namespace", own: "/../a", err: "/../a, lies outside of its cgroup namespace"},
		{name: "not there", own: "/b", err: "no such file"},
		{name: "no group", own: "/a", dir: "/", err: "/ is no directory of a cgroup v2 hierarchy"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, h := tree(t, tc.own, tc.files)
			dir := tc.dir
			if dir != "" && dir != "/" {
				dir = filepath.Join(root, dir)
			}
			p, err := h.find(dir, []Controller{Memory, CPU})
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || p.Dir() != filepath.Join(root, "a") {
				t.Fatalf("%+v, %v, want %s/a", p, err, root)
			}
			for path, want := range map[string]string{"a/cgroup.subtree_control": tc.controls, "a/" + leafName + "/cgroup.procs": tc.leaf} {
				got, err := os.ReadFile(filepath.Join(root, path))
				// An ordinary file keeps the rest of what it held.
				if err != nil || !strings.HasPrefix(string(got), want) {
					t.Errorf("%s holds %q, %v, want %q", path, got, err, want)
				}
			}
		})
	}
}

func TestDelegated(t *testing.T) {
	root, h := tree(t, "/a", map[string]string{"a/cgroup.subtree_control": "", "a/cgroup.procs": ""})
	p := &Parent{filepath.Join(root, "a"), h}
	if err := p.delegated(); err != nil {
		t.Errorf("%v, want it delegated", err)
	}
	for _, name := range []string{"cgroup.procs", "."} {
		if err := os.Chmod(filepath.Join(p.dir, name), 0o555); err != nil {
			t.Fatal(err)
		}
		if err := p.delegated(); err == nil || !strings.Contains(err.Error(), "is not delegated") {
			t.Errorf("%s read-only: %v", name, err)
		}
		if err := os.Chmod(filepath.Join(p.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.Chown(p.dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := p.delegated(); err == nil || !strings.Contains(err.Error(), "belongs to uid 65534") {
			t.Errorf("another's: %v", err)
		}
	}
}
