package ir

import (
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/glob"
)

// TestExpandProtect: the result is a pattern in which values stand for themselves.
func TestExpandProtect(t *testing.T) {
	values := map[string]string{
		"cwd": "/home/me/a[b]", "home": "/", "tmp": "/tmp/", "dir": "/srv//x", "name": "x*y", "dot": "..", "empty": "", "rel": "srv",
	}
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	for _, tc := range []struct{ pattern, want, matches string }{
		{"**/.git/**", "**/.git/**", "a/.git/x"},
		{"${cwd}/.env", `/home/me/a\[b]/.env`, "/home/me/a[b]/.env"},
		{"${cwd}", `/home/me/a\[b]`, "/home/me/a[b]"},
		{"${home}/*.key", "/*.key", "/x.key"},
		{"${tmp}/x", "/tmp/x", "/tmp/x"},
		{"${dir}/x", "/srv/x/x", "/srv/x/x"},
		{"**/${name}/?", `**/x\*y/?`, "a/x*y/b"},
	} {
		got, err := ExpandProtect(tc.pattern, lookup)
		if err != nil || got != tc.want || !glob.Match(got, tc.matches) {
			t.Errorf("%s: got %q (%v), want %q that matches %s", tc.pattern, got, err, tc.want, tc.matches)
		}
	}
	for _, bad := range []string{"${nobody}/x", "**/${dot}", "**/${empty}/x", "${rel}/x", "${home}", "**/${cwd}"} {
		if got, err := ExpandProtect(bad, lookup); err == nil {
			t.Errorf("%s: got %q, want an error", bad, got)
		}
	}
}

func TestWrites(t *testing.T) {
	for access, want := range map[uint64]bool{
		abi.FSRead: false, abi.FSRead | abi.FSIoctlDev | abi.FSResolveUnix: false, abi.FSWriteFile: true, abi.FSRead | abi.FSRemoveFile: true,
	} {
		if got := (&PathRule{Access: access, Kind: PathRequired}).Writes(); got != want {
			t.Errorf("%v: got %v, want %v", abi.FSRightNames(access), got, want)
		}
	}
	if (&PathRule{Access: abi.FSWriteFile, Kind: PathNumbered}).Writes() {
		t.Error("device nodes are no directory to write beneath")
	}
}

// TestDumpView: a reader sees all of it, and who asks for no namespace reads nothing about them.
func TestDumpView(t *testing.T) {
	p := sample()
	text := p.Dump(DumpOptions{Origins: true})
	for _, want := range []string{
		"view         namespaces user mount uts pid ipc, 2 mounts, 1 denied path, 2 protected patterns, another root",
		"uid 1000, gid 4294967294", "${work}/root", "/data = /srv/a:b (read-only)", "/out = ${home}/out", "**/.git/hooks/**", "${work}/*.key",
		"deny        ${work}/secret", "closed      /proc/kcore", "read-only   /proc/sys", "private: empty, gone at exit", "where the host lets it",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the dump has no %q:\n%s", want, text)
		}
	}
	p.Process.Start, p.View = StartDirect, View{}
	if text := p.Dump(DumpOptions{}); strings.Contains(text, "\nview") || strings.Contains(text, "  view") {
		t.Errorf("a direct start has a view:\n%s", text)
	}
}

// TestKernelPaths: what stays closed is what grants reach, from above and from below.
func TestKernelPaths(t *testing.T) {
	for _, list := range [][]string{KernelClosed, KernelReadOnly} {
		if err := checkNames(list, "path", checkKernelPath); err != nil {
			t.Error(err)
		}
	}
	for grant, want := range map[string]int{
		"/": len(KernelClosed), "/proc": 17, "/sys": 7, "/proc/kcore": 1, "/proc/acpi/x": 1, "/sys/class": 1, "/sys/class/net/eth0": 1,
		"/usr": 0, "/proc/keyshare": 0, "${cwd}": 0,
	} {
		if got := KernelReached(KernelClosed, grant); len(got) != want {
			t.Errorf("%s: got %v, want %d", grant, got, want)
		}
	}
}

func TestExposes(t *testing.T) {
	v := View{Mount: true, Masks: KernelReached(KernelClosed, "/proc"), ReadOnly: []string{"/proc/sys"}}
	for _, tc := range []struct {
		grant  string
		access uint64
		want   string
	}{
		{"/proc", abi.FSRead, ""},
		{"/proc", abi.FSWriteFile, "/proc/bus"},
		{"/proc/sys/vm", abi.FSWriteFile, ""},
		{"/sys/class/net", abi.FSReadFile, "/sys/class/net"},
		{"/", abi.FSRead, "/sys/class/net"},
		{"/usr", abi.FSWriteFile, ""},
	} {
		if got := v.Exposes(tc.grant, tc.access); got != tc.want {
			t.Errorf("%s for %v: got %q, want %q", tc.grant, abi.FSRightNames(tc.access), got, tc.want)
		}
	}
	v = View{Mount: true, Root: "/srv", Masks: KernelReached(KernelClosed, "/sys")}
	if got := v.Exposes("/", abi.FSRead); got != "" {
		t.Errorf("another root without /proc: got %q", got)
	}
	if got := (&View{}).Exposes("/", abi.FSRead); got != "" {
		t.Errorf("without mounts: got %q", got)
	}
}
