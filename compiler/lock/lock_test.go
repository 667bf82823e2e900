package lock

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	many := func(n int, line string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, line+"\n", i/256, i%256)
		}
		return b.String()
	}
	for _, tc := range []struct{ text, want, fails string }{
		{text: ""},
		{text: "# nothing\n\n \t\n"},
		{text: "192.0.2.1 A.example. b.example#c", want: "a.example=192.0.2.1 b.example=192.0.2.1"},
		{text: "2001:DB8:0::1\ta.example\n192.0.2.1  a.example", want: "a.example=2001:db8::1 a.example=192.0.2.1"},
		{text: "192.0.2.1", fails: "1:1: 192.0.2.1 has no name"},
		{text: "\n192.0.2.01 a.example", fails: "2:1: \"192.0.2.01\" is not an IP address"},
		{text: "a.example 192.0.2.1", fails: "is not an IP address"},
		{text: "192.0.2.1 127.1", fails: "would be read as an address"},
		{text: "192.0.2.1 *.example", fails: "is not a host name"},
		{text: "192.0.2.1 a.example\r\n", fails: "bytes that no text has"},
		{text: "192.0.2.1 a.example # \xff", fails: "bytes that no text has"},
		{text: "192.0.2.1\u00a0a.example", fails: "is not an IP address"},
		{text: "192.0.2.1 a.example\n192.0.2.1 A.example", fails: "2:1: 192.0.2.1 a.example stands in line 1 already"},
		{text: many(257, "10.0.%d.%d a.example"), fails: "257:1: a.example has more than 256 addresses"},
		{text: many(4097, "10.0.%[1]d.%[2]d a%[1]d-%[2]d.example"), fails: "more than 4096 entries"},
	} {
		entries, diags := Parse("policy.hosts", []byte(tc.text))
		var got []string
		for _, e := range entries {
			got = append(got, e.Name+"="+e.Address.String())
		}
		short := tc.text[:min(len(tc.text), 40)]
		if tc.fails != "" {
			if !strings.Contains(diags.String(), tc.fails) || len(diags) != 1 || entries != nil {
				t.Errorf("%q: %d entries, %s; want %s", short, len(entries), diags, tc.fails)
			}
			continue
		}
		if diags != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%q: got %q, %s; want %q", short, got, diags, tc.want)
		}
	}
}

// Whatever is accepted is written in one form, which means the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("# a\n192.0.2.1 a.example b.example\n::1 a.example # c\n"))
	f.Add([]byte("192.0.2.1\ta.example\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, diags := Parse("f", data)
		if diags.HasErrors() {
			if entries != nil {
				t.Fatal("mistakes and entries")
			}
			return
		}
		text := Format("p.cue", entries)
		again, diags := Parse("f", text)
		if diags.HasErrors() || len(again) != len(entries) || !bytes.Equal(Format("p.cue", again), text) {
			t.Fatalf("%s\n%s", text, diags)
		}
		for _, e := range entries {
			same := func(a Entry) bool { return a.Name == e.Name && a.Address == e.Address }
			if !slices.ContainsFunc(again, same) || e.Address.Zone() != "" || e.Address.Is4In6() || e.Name != strings.ToLower(e.Name) {
				t.Fatalf("%+v is not in\n%s", e, text)
			}
		}
	})
}
