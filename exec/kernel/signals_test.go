package kernel

import "testing"

func TestSignalWaits(t *testing.T) {
	for _, tc := range []struct {
		status string
		want   bool
	}{
		{"Threads:\t1\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", false},
		{"Threads:\t1\nSigPnd:\t0000000000002000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", true},
		{"Threads:\t1\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000002000\nSigBlk:\t0000000000000000\n", true},
		{"Threads:\t2\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000002000\nSigBlk:\t0000000000000000\n", false},
		{"Threads:\t2\nSigPnd:\t0000000000000200\nShdPnd:\t0000000000002000\nSigBlk:\t0000000000000000\n", true},
		{"Threads:\t1\nSigPnd:\t0000000000002000\nShdPnd:\t0000000000002000\nSigBlk:\t0000000000002000\n", false},
		{"Threads:\t1\nSigPnd:\t0000000000040000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", false}, // SIGSTOP
		{"", false},
	} {
		if got := signalWaits([]byte(tc.status)); got != tc.want {
			t.Errorf("%q: %v", tc.status, got)
		}
	}
}
