package parentdeath

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

type guest struct{ supervise.Guest }

func (guest) Valid(uint64) bool { return true }

func TestOnlyTheCommandIsGuarded(t *testing.T) {
	h := New(abi.AMD64, 10)
	h.group = func(tid int) (int, error) {
		if tid == 99 {
			return 0, unix.ESRCH
		}
		return tid / 10 * 10, nil
	}
	for _, tc := range []struct {
		tid    int
		option uint64
		signal uint64
		want   string
	}{
		{10, unix.PR_SET_PDEATHSIG, 15, "return 0"},
		{11, unix.PR_SET_PDEATHSIG, 0, "return 0"},
		{10, unix.PR_SET_PDEATHSIG, 65, "errno EINVAL"},
		{10, 1<<32 | unix.PR_SET_PDEATHSIG, 15, "return 0"},
		{20, unix.PR_SET_PDEATHSIG, 3, "continue: decided on registers"},
		{99, unix.PR_SET_PDEATHSIG, 3, "errno EPERM"},
		{10, unix.PR_SET_NAME, 3, "next"},
	} {
		c := supervise.NewCall(tc.tid, h.call, [6]uint64{tc.option, tc.signal}, guest{})
		if got := h.Handle(c).String(); got != tc.want {
			t.Errorf("thread %d, option %d, signal %d: %s, want %s", tc.tid, tc.option, tc.signal, got, tc.want)
		}
	}
}
