package helper

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFindRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, Name)
	if err := os.WriteFile(file, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := Find(file)
	if err != nil {
		t.Fatalf("the user's own file: %v", err)
	}
	p.Close()
	for _, tc := range []struct{ path, want string }{
		{dir, "not a regular file"},
		{"/dev/null", "not a regular file"},
		{file + ".missing", "does not exist"},
	} {
		if _, err := Find(tc.path); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Find(%s): %v, want %q", tc.path, err, tc.want)
		}
	}
	if err := os.Chmod(file, 0o757); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(file); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("a file that everybody may write: %v", err)
	}
}

func TestTrusted(t *testing.T) {
	const uid, gid = 1000, 1000
	for _, tc := range []struct {
		name       string
		mode       uint32
		owner, grp uint32
		ok         bool
	}{
		{"own", unix.S_IFREG | 0o755, uid, gid, true},
		{"root's", unix.S_IFREG | 0o755, 0, 0, true},
		{"own group may write", unix.S_IFREG | 0o775, uid, gid, false},
		{"other group may write", unix.S_IFREG | 0o775, uid, 50, false},
		{"everybody may write", unix.S_IFREG | 0o757, uid, gid, false},
		{"somebody else's", unix.S_IFREG | 0o755, 1001, gid, false},
		{"directory", unix.S_IFDIR | 0o755, uid, gid, false},
		{"FIFO", unix.S_IFIFO | 0o755, uid, gid, false},
	} {
		if err := trusted(&unix.Stat_t{Mode: tc.mode, Uid: tc.owner, Gid: tc.grp}, uid); (err == nil) != tc.ok {
			t.Errorf("%s: %v, want ok %t", tc.name, err, tc.ok)
		}
	}
}

func TestParseHosts(t *testing.T) {
	names := []string{"a.test", "b.test"}
	got, err := parseHosts("192.0.2.1 a.test\n192.0.2.1 a.test\n2001:db8::1 a.test\n", names)
	want := map[string][]netip.Addr{"a.test": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, text := range []string{
		"192.0.2.1 c.test\n", "192.0.2.1\n", "a.test 192.0.2.1\n", "192.0.2.1 a.test b.test\n", "192.0.2.1\ta.test\n", "fe80::1%lo a.test\n",
		"::ffff:192.0.2.1 a.test\n", " 192.0.2.1 a.test\n", "\n", strings.Repeat("x", 1000),
	} {
		if got, err := parseHosts(text, names); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestParseComplaints(t *testing.T) {
	got := parseComplaints("a.test: no such\x1b[31m host\nb.test:\nc.test: x\npanic: y\na.test: again\n", []string{"a.test", "b.test"})
	if want := map[string]string{"a.test": "no such?[31m host"}; !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add("192.0.2.1 a.test\n")
	f.Add("::1 a.test\n127.0.0.1 a.test")
	names := []string{"a.test"}
	f.Fuzz(func(t *testing.T, text string) {
		found, err := parseHosts(text, names)
		if err != nil {
			return
		}
		for name, list := range found {
			if !slices.Contains(names, name) || len(list) == 0 {
				t.Errorf("%q gives %q the addresses %v", text, name, list)
			}
		}
		parseComplaints(text, names)
	})
}

func TestIsCertificate(t *testing.T) {
	const one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	for text, want := range map[string]bool{
		"": true, one: true, one + one: false, "\n" + one: false, one + "x": false, "x\n" + one: false, "x": false, one[:len(one)-1]: false,
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n":         false,
		"-----BEGIN CERTIFICATE-----\nA: b\n\nAAAA\n-----END CERTIFICATE-----\n": false,
	} {
		if got := isCertificate([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// A program that is none of ours ends the start, at once and with what it said.
func TestStartResolverFails(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, path := range []string{"/bin/false", "/bin/cat"} {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		p, err := Find(path)
		if err != nil {
			t.Skip(err)
		}
		r, err := p.StartResolver(ResolverConfig{Names: []string{"a.test"}})
		p.Close()
		if err == nil {
			r.End()
			t.Fatalf("%s is a resolver", path)
		}
		if path == "/usr/bin/cat" && !strings.Contains(err.Error(), "resolver: No such file") {
			t.Errorf("%s: %v, want what it said", path, err)
		}
	}
}
