package sshsig

import (
	"encoding/base64"
	"strings"
	"testing"
)

func encodeKey(blob []byte) string { return base64.StdEncoding.EncodeToString(blob) }

func TestParseAllowedSigners(t *testing.T) {
	pub := strings.TrimSpace(string(testdata(t, "ed25519.pub")))
	bare := strings.Join(strings.Fields(pub)[:2], " ")
	file := strings.Join([]string{
		"# signers of policies", "", "  \t", "ann " + pub, "\tbob,*@example.com\t" + bare + "\r",
		`"eve" namespaces="a\"b,c" ` + bare + " a comment",
	}, "\n")
	l, err := ParseAllowedSigners("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range l.entries {
		got = append(got, e.principals+" "+strings.Join(e.namespaces, "|"))
	}
	if want := `ann ;bob,*@example.com ;eve a"b|c`; strings.Join(got, ";") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if l.entries[2].line != 6 {
		t.Errorf("line of the last entry: got %d, want 6", l.entries[2].line)
	}
}

func TestParseAllowedSignersRefuses(t *testing.T) {
	pub := strings.TrimSpace(string(testdata(t, "ed25519.pub")))
	keyType, encoded, _ := strings.Cut(pub, " ")
	for _, tc := range []struct{ file, want string }{
		{"", "f: no signer in it"},
		{"# nothing", "no signer in it"},
		{strings.Repeat("#", maxAllowedFile+1), "at most 1048576"},
		{strings.Repeat("\n", maxAllowedLines+1), "more than 10000 lines"},
		{"ann", "f:1: line ends before the public key"},
		{"# c\n\nann " + keyType, "f:3: line ends before the public key"},
		{"ann " + keyType + " !!!!", "illegal base64"},
		{"ann " + keyType + " " + encoded[:20], "f:1: public key"},
		{"ann ssh-rsa " + encoded, `of type "ssh-ed25519", the line says "ssh-rsa"`},
		{"ann " + encoded, "is not supported"},
		{"ann ssh-dss AAAA", `"ssh-dss" is not supported`},
		{"ann " + string(testdata(t, "cert.pub")), "is not supported"},
		{"ann " + string(testdata(t, "rsa1024.pub")), "key of 1024 bits"},
		{"ann cert-authority " + pub, "certificates are not supported"},
		{`ann namespaces="git",cert-authority ` + pub, "certificates are not supported"},
		{"ann no-touch-required " + pub, `"no-touch-required" is not supported`},
		{`ann namespaces="" ` + pub, "no value"},
		{"ann namespaces " + pub, "no value"},
		{"ann namespaces=git " + pub, "not in double quotes"},
		{`ann namespaces="git ` + pub, "quote is not closed"},
		{`ann namespaces="git"x ` + pub, "text after its value"},
		{`ann namespaces="git",namespaces="*" ` + pub, "given twice"},
		{`ann namespaces="git", ` + pub, `"" is not supported`},
		{`ann valid-after="yesterday" ` + pub, "not a time"},
		{`ann valid-after="2026010" ` + pub, "not a time"},
		{`ann valid-after="20261301" ` + pub, "not a time"},
		{`ann valid-after="2026010203Z" ` + pub, "not a time"},
		{`ann valid-after="20260101Z",valid-before="20260101Z" ` + pub, "not before"},
		{`"ann ` + pub, "quote is not closed"},
		{`"" ` + pub, "empty or badly quoted"},
		{"ann\x00 " + pub, "control character"},
		{"ann " + pub + " \x1b[2J", "control character"},
	} {
		if l, err := ParseAllowedSigners("f", []byte(tc.file)); l != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.80q: got %v, %v, want an error with %q", tc.file, l, err, tc.want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "abc", true},
		{"a*c", "abbc", true},
		{"a*c", "abb", false},
		{"?", "", false},
		{"a?c", "abc", true},
		{"*b*b*", "abab", true},
		{"**a", "a", true},
		{"sandlock-policy", "sandlock-policy", true},
		{"sandlock-policy", "sandlock-policy2", false},
		{"Sandlock-policy", "sandlock-policy", false},
		{strings.Repeat("*a", 50) + "b", strings.Repeat("a", 200), false}, // must not take exponential time
	} {
		if got := match(tc.pattern, tc.s); got != tc.want {
			t.Errorf("match %q with %q: got %v, want %v", tc.pattern, tc.s, got, tc.want)
		}
	}
}

func FuzzAllowedSigners(f *testing.F) {
	pub := strings.TrimSpace(string(testdata(f, "ed25519.pub")))
	f.Add("ann " + pub)
	f.Add(`"a,b" namespaces="x\"y",valid-after="20260101Z",valid-before="202701010000" ` + pub + "\n# c\n")
	f.Add("ann cert-authority " + pub)
	f.Add("* " + string(testdata(f, "p256.pub")))
	sig := binarySig(f, "ed25519")
	f.Fuzz(func(t *testing.T, file string) {
		l, err := ParseAllowedSigners("f", []byte(file))
		if err != nil {
			if l != nil {
				t.Fatalf("parse: got signers with error %v", err)
			}
			return
		}
		for _, e := range l.entries {
			if e.principals == "" || !strings.Contains(file, e.key.Type) || !strings.Contains(file, encodeKey(e.key.Blob)) {
				t.Fatalf("entry %+v is not what stands in %q", e, file)
			}
		}
		signer, err := Verify(attached(t, sig), l, now)
		if err == nil && !strings.Contains(file, encodeKey(signer.Key.Blob)) {
			t.Fatalf("signer %+v accepted by %q", signer, file)
		}
	})
}
