package protocol

import (
	"strings"
	"testing"
)

func TestTrim(t *testing.T) {
	long := strings.Repeat("x", MaxSecret)
	for in, want := range map[string]string{
		"s": "s", "s\n": "s", "s\r\n": "s", "s\n\n": "s\n", "s\r\n\r\n": "s\r\n", "s\r": "s\r", "s\r\r\n": "s\r", " s \n": " s ", "\ns": "\ns", "\x00": "\x00",
		"": "", "\n": "", "\r\n": "", "\r": "\r", "\n\n": "\n",
		long: long, long + "\n": long, long + "\r\n": long, long + "x": "", long + "\n\n": "", long + "x\n": "",
	} {
		got, err := Trim([]byte(in))
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%.20q (%d bytes): %.20q, %v; want %.20q", in, len(in), got, err, want)
		}
	}
}
