package policy

import (
	"testing"
	"time"
)

func TestParseBind(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"8080,9000-9002", "8080,9000-9002"},
		{"9001,443", "443,9001"},
		{"0", "0"},
		{"*", "*"},
		{"*,*", "*"},
		{" 80 , 81 - 83 ", "80-83"},
		{"10-20,15-30", "10-30"},
		{"65535,65534", "65534-65535"},
		{"${port},80", "80,${port}"},
	} {
		set, err := ParseBind(tc.in)
		if got := set.String(); err != nil || got != tc.want {
			t.Errorf("ParseBind(%q): got %q, %v, want %q", tc.in, got, err, tc.want)
		}
	}
	for _, tc := range []struct{ in, rule, want string }{
		{"9000-8000", "bind", "reversed"},
		{"80,abc", "port", `"abc"`},
		{"70000", "port-range", "above 65535"},
		{"8080,", "bind", "empty port"},
		{"", "bind", "empty port"},
		{"*,8080", "bind", "cannot be combined"},
		{"-80", "port", "is not a port"},
		{"80-", "port", "is not a port"},
		{"1-2-3", "port", "is not a port"},
		{"${}", "template", "parameter name"},
	} {
		_, err := ParseBind(tc.in)
		wantGrammarError(t, "ParseBind", tc.in, err, tc.rule, tc.want)
	}
}

func TestParseSize(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want uint64
	}{
		{"512M", 512 << 20}, {"1G", 1 << 30}, {"100K", 100 << 10}, {"1024", 1024}, {"512m", 512 << 20}, {"1g", 1 << 30},
		{" 2k ", 2 << 10}, {"18446744073709551615", 1<<64 - 1}, {"17179869183G", 17179869183 << 30},
	} {
		if got, err := ParseSize(tc.in); err != nil || got != tc.want {
			t.Errorf("ParseSize(%q): got %d, %v, want %d", tc.in, got, err, tc.want)
		}
	}
	for _, tc := range []struct{ in, want string }{
		{"", "is not a size"}, {"M", "is not a size"}, {"not_a_size", "is not a size"}, {"-1", "is not a size"},
		{"1T", "is not a size"}, {"1KB", "is not a size"}, {"1.5G", "is not a size"}, {"0x10", "is not a size"},
		{"17179869184G", "out of range"}, {"18446744073709551616", "out of range"},
	} {
		_, err := ParseSize(tc.in)
		wantGrammarError(t, "ParseSize", tc.in, err, "size", tc.want)
	}
}

func TestParseDuration(t *testing.T) {
	if got, err := ParseDuration("1h30m"); err != nil || got != 90*time.Minute {
		t.Errorf(`ParseDuration("1h30m"): got %v, %v`, got, err)
	}
	for _, tc := range []struct{ in, want string }{
		{"", "is not a duration"}, {"30", "is not a duration"}, {"1d", "is not a duration"}, {"0s", "above zero"},
		{"-1s", "above zero"}, {"1us", "finer"}, {"9999999999h", "is not a duration"},
	} {
		_, err := ParseDuration(tc.in)
		wantGrammarError(t, "ParseDuration", tc.in, err, "duration", tc.want)
	}
	a, err := ParseTime("2000-01-01T01:00:00+01:00")
	if want := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC); err != nil || a != want {
		t.Errorf("ParseTime: got %v, %v, want %v", a, err, want)
	}
	if got, err := ParseTime("2000-01-01T00:00:00.5Z"); err == nil {
		t.Errorf("ParseTime of half a second: got %v, want a refusal", got)
	}
}

func TestParsePath(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"/", "/"}, {"/usr", "/usr"}, {"/usr/", "/usr"}, {"${cwd}", "${cwd}"}, {"${cwd}/x", "${cwd}/x"},
		{"/srv/${tenant}/data", "/srv/${tenant}/data"}, {"/a b/$x", "/a b/$x"}, {"/...", "/..."}, {"/ü", "/ü"},
	} {
		if got, err := ParsePath(tc.in); err != nil || got != tc.want {
			t.Errorf("ParsePath(%q): got %q, %v, want %q", tc.in, got, err, tc.want)
		}
	}
	for _, tc := range []struct{ in, rule, want string }{
		{"", "path", "empty"}, {"usr", "path", "not absolute"}, {"./x", "path", "not absolute"},
		{"~/x", "path", "not absolute"}, {"${cwd}x", "path", "not absolute"}, {"/a/../b", "path", `".."`},
		{"/a/.", "path", `"."`}, {"//a", "path", `"//"`}, {"/a//b", "path", `"//"`}, {"/a//", "path", `"//"`}, {"//", "path", `"//"`},
		{"/a\x00b", "text", "NUL"}, {"/a\nb", "text", "control"}, {"/a\xff", "text", "UTF-8"}, {"/${", "template", "${"},
		{"/${a b}", "template", "not allowed"}, {"${cwd}/..", "path", `".."`},
	} {
		_, err := ParsePath(tc.in)
		wantGrammarError(t, "ParsePath", tc.in, err, tc.rule, tc.want)
	}
}

func TestParseMount(t *testing.T) {
	for _, tc := range []struct{ in, target, source, mode string }{
		{"/v:/h", "/v", "/h", "rw"}, {"/v:/h:ro", "/v", "/h", "ro"}, {"/v:/h:rw", "/v", "/h", "rw"}, {"/v:/a:b:ro", "/v", "/a:b", "ro"},
	} {
		target, source, mode, err := ParseMount(tc.in)
		if err != nil || target != tc.target || source != tc.source || mode != tc.mode {
			t.Errorf("ParseMount(%q): got %q %q %q, %v", tc.in, target, source, mode, err)
		}
	}
	for _, tc := range []struct{ in, rule, want string }{
		{"/v", "mount", "is not a mount"}, {"/v:", "mount", "is not a mount"}, {":/h", "mount", "is not a mount"},
		{"/v:ro", "mount", "is not a mount"}, {"/v:h", "path", "not absolute"},
	} {
		_, _, _, err := ParseMount(tc.in)
		wantGrammarError(t, "ParseMount", tc.in, err, tc.rule, tc.want)
	}
}

func TestParseGlob(t *testing.T) {
	for _, in := range []string{"**/.git/hooks/**", "*.key", "/etc/*", "a/**", "[ab]?"} {
		if got, err := ParseGlob(in); err != nil || got != in {
			t.Errorf("ParseGlob(%q): got %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "/", "../x", "a/../b", "a//b", "a**b", "[", "a\x00"} {
		if _, err := ParseGlob(in); err == nil {
			t.Errorf("ParseGlob(%q): got no error", in)
		}
	}
}

func TestParseHTTPRule(t *testing.T) {
	for _, tc := range []struct {
		in     string
		want   string
		prefix bool
	}{
		{"GET api.example.com/v1/*", "GET api.example.com/v1/*", true},
		{"get API.Example.com/v1", "GET api.example.com/v1", false},
		{"* */admin/*", "* */admin/*", true},
		{"* *", "* */*", true},
		{"POST  host", "POST host/*", true},
		{"GET h/*", "GET h/*", true},
		{"GET h/", "GET h/", false},
		{"GET h/v1*", "GET h/v1*", true},
		{"GET h/%61b", "GET h/ab", false},
		{"GET 10.0.0.1/x", "GET 10.0.0.1/x", false},
		{"GET [::1]/x", "GET [::1]/x", false},
		{"GET [::ffff:10.0.0.1]/x", "GET 10.0.0.1/x", false},
		{"GET h/@types%2f*", "GET h/@types%2F*", true},
	} {
		rule, err := ParseHTTPRule(tc.in)
		if got := rule.String(); err != nil || got != tc.want || rule.Prefix != tc.prefix {
			t.Errorf("ParseHTTPRule(%q): got %q (prefix %v), %v, want %q", tc.in, got, rule.Prefix, err, tc.want)
		}
	}
	for _, in := range []string{
		"", "GET", "host/x", "GET host /x", "G*T host/x", "GET api:8080/x", "GET *.example.com/x", "GET h/a?b", "GET h/a*b",
		"GET h/%2A", "GET h/%zz", "GET h/%00", "GET h//a", "GET h/../a", "GET h/%2e%2e/a", "GET h/a/./b", "GET /x", "GET ::1/x",
		"GET h/\xff", "G(T h/x", "GET 127.1/x", "GET a_b/x", "GET h/..*", "GET h/a%2F..", "GET h/%252e",
	} {
		if rule, err := ParseHTTPRule(in); err == nil {
			t.Errorf("ParseHTTPRule(%q): got %q and no error", in, rule)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Endpoint
	}{
		{"example.com:443", Endpoint{Proto: "tcp", Host: "example.com", Port: 443}},
		{"udp://example.com:53", Endpoint{Proto: "udp", Host: "example.com", Port: 53}},
	} {
		if got, err := ParseConnect(tc.in); err != nil || got != tc.want {
			t.Errorf("ParseConnect(%q): got %+v, %v, want %+v", tc.in, got, err, tc.want)
		}
	}
	for _, in := range []string{"*:80", "example.com", "example.com:80,81", "10.0.0.0/8:80", "icmp://h", "*.a.b:80", "h:${p}"} {
		if e, err := ParseConnect(in); err == nil {
			t.Errorf("ParseConnect(%q): got %+v and no error", in, e)
		}
	}
	for in, want := range map[string]string{"8080": "tcp", "udp://53": "udp", "127.0.0.1:80": "tcp", "tcp://[::1]:80": "tcp"} {
		if got, err := ParseBindEndpoint(in); err != nil || got.Proto != want {
			t.Errorf("ParseBindEndpoint(%q): got %+v, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "70000", "icmp://80", "host:80", "*:80"} {
		if e, err := ParseBindEndpoint(in); err == nil {
			t.Errorf("ParseBindEndpoint(%q): got %+v and no error", in, e)
		}
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"8080,9000-9002", "*", "0-65535", "${p},1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := ParseBind(s)
		if err != nil {
			return
		}
		again, err := ParseBind(set.String())
		if err != nil || again.String() != set.String() {
			t.Fatalf("ParseBind(%q) prints %q, which parses as %q, %v", s, set, again, err)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	f.Add("512M")
	f.Add("17179869184G")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err == nil && n == 0 && !containsOnly(s, "0 kKmMgG\t\n\r\v\f\u0085\u00a0") {
			t.Fatalf("ParseSize(%q) = 0", s)
		}
	})
}

func containsOnly(s, set string) bool {
	for _, r := range s {
		found := r > 0x7f // other Unicode spaces
		for _, c := range set {
			found = found || r == c
		}
		if !found {
			return false
		}
	}
	return true
}

func FuzzParseDuration(f *testing.F) {
	f.Add("1h30m")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDuration(s); err == nil && (d < time.Millisecond || d%time.Millisecond != 0) {
			t.Fatalf("ParseDuration(%q) = %v", s, d)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/usr/", "${cwd}/x", "/a/../b", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			return
		}
		if again, err := ParsePath(p); err != nil || again != p {
			t.Fatalf("ParsePath(%q) = %q, which parses as %q, %v", s, p, again, err)
		}
	})
}

func FuzzParseHTTPRule(f *testing.F) {
	for _, s := range []string{"GET h/v1/*", "* *", "get [::1]/%41*", "X h/;a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rule, err := ParseHTTPRule(s)
		if err != nil {
			return
		}
		if again, err := ParseHTTPRule(rule.String()); err != nil || again != rule {
			t.Fatalf("ParseHTTPRule(%q) prints %q, which parses as %+v, %v", s, rule, again, err)
		}
	})
}

func FuzzParseGlobAndMount(f *testing.F) {
	f.Add("**/.git/**")
	f.Add("/a:/b:ro")
	f.Fuzz(func(t *testing.T, s string) {
		if g, err := ParseGlob(s); err == nil && g != s {
			t.Fatalf("ParseGlob(%q) = %q", s, g)
		}
		if target, source, mode, err := ParseMount(s); err == nil && (target[0] != '/' && target[0] != '$' || source == "" || mode == "") {
			t.Fatalf("ParseMount(%q) = %q %q %q", s, target, source, mode)
		}
	})
}
