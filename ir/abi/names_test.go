package abi_test

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/sandlock-go/sandlock/ir/abi"
)

func TestErrnoNames(t *testing.T) {
	for e := abi.Errno(0); e <= 200; e++ {
		name, ok := abi.ErrnoName(e)
		if want := e >= 1 && e <= 133 && e != 41 && e != 58; ok != want {
			t.Errorf("ErrnoName(%d): got %v, want %v", e, ok, want)
		}
		if back, found := abi.ErrnoByName(name); ok && (!found || back != e) {
			t.Errorf("ErrnoByName(%q): got %d, %v, want %d", name, back, found, e)
		}
	}
	for name, want := range map[string]abi.Errno{
		"EPERM": abi.EPERM, "ENOENT": abi.ENOENT, "EAGAIN": abi.EAGAIN, "EWOULDBLOCK": abi.EAGAIN, "EACCES": abi.EACCES,
		"EINVAL": abi.EINVAL, "ENOSYS": abi.ENOSYS, "EPROTONOSUPPORT": abi.EPROTONOSUPPORT,
		"EOPNOTSUPP": abi.EOPNOTSUPP, "ENOTSUP": abi.EOPNOTSUPP, "EAFNOSUPPORT": abi.EAFNOSUPPORT,
	} {
		if got, ok := abi.ErrnoByName(name); !ok || got != want {
			t.Errorf("ErrnoByName(%q): got %d, %v, want %d", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "eperm", "ENONSENSE"} {
		if got, ok := abi.ErrnoByName(name); ok {
			t.Errorf("ErrnoByName(%q): got %d, want none", name, got)
		}
	}
}

func TestSupportedByLandlockABI(t *testing.T) {
	for _, tc := range []struct {
		abi                     int
		fsBits, netBits, scopes int
	}{
		{0, 0, 0, 0},
		{1, 13, 0, 0},
		{2, 14, 0, 0},
		{3, 15, 0, 0},
		{4, 15, 2, 0},
		{5, 16, 2, 0},
		{6, 16, 2, 2},
		{7, 16, 2, 2},
		{8, 16, 2, 2},
		{9, 17, 2, 2},
		{10, 17, 4, 2},
		{11, 17, 4, 2},
		{99, 17, 4, 2},
	} {
		fs, net, scoped := abi.Supported(tc.abi)
		// Rights are numbered in the order of their ABI, so each mask is a run of low bits.
		if want := uint64(1)<<tc.fsBits - 1; fs != want {
			t.Errorf("ABI %d: filesystem: got %#x, want %#x", tc.abi, fs, want)
		}
		if want := uint64(1)<<tc.netBits - 1; net != want {
			t.Errorf("ABI %d: network: got %#x, want %#x", tc.abi, net, want)
		}
		if want := uint64(1)<<tc.scopes - 1; scoped != want {
			t.Errorf("ABI %d: scopes: got %#x, want %#x", tc.abi, scoped, want)
		}
	}
}

func TestRightNames(t *testing.T) {
	fs, net, scoped := abi.Supported(abi.LatestLandlock)
	for _, family := range []struct {
		name   string
		mask   uint64
		byBit  func(uint64) (string, bool)
		byName func(string) (uint64, bool)
		list   func(uint64) []string
	}{
		{"fs", fs, abi.FSRightName, abi.FSRightByName, abi.FSRightNames},
		{"net", net, abi.NetRightName, abi.NetRightByName, abi.NetRightNames},
		{"scope", scoped, abi.ScopeName, abi.ScopeByName, abi.ScopeNames},
	} {
		for i := range bits.Len64(family.mask) {
			name, ok := family.byBit(1 << i)
			if !ok {
				t.Errorf("%s bit %d has no name", family.name, i)
			}
			if bit, ok := family.byName(name); !ok || bit != 1<<i {
				t.Errorf("%s %q: got bit %#x, want %#x", family.name, name, bit, uint64(1)<<i)
			}
		}
		if names := family.list(family.mask); len(names) != bits.OnesCount64(family.mask) {
			t.Errorf("%s: got %d names, want %d", family.name, len(names), bits.OnesCount64(family.mask))
		}
		if name, ok := family.byBit(3); ok {
			t.Errorf("%s: the two bits 3 have the name %q, want none", family.name, name)
		}
	}
	got, want := abi.FSRightNames(abi.FSRead|1<<40), []string{"execute", "read_file", "read_dir", "bit_40"}
	if !slices.Equal(got, want) {
		t.Errorf("FSRightNames: got %q, want %q", got, want)
	}
}

func TestCapabilityNames(t *testing.T) {
	for c := range uint8(41) {
		name, ok := abi.CapabilityName(c)
		if !ok {
			t.Errorf("capability %d has no name", c)
		}
		if back, ok := abi.CapabilityByName(name); !ok || back != c {
			t.Errorf("CapabilityByName(%q): got %d, %v, want %d", name, back, ok, c)
		}
	}
	for name, want := range map[string]uint8{
		"CAP_NET_BIND_SERVICE": 10, "net_bind_service": 10, "cap_sys_admin": 21, "checkpoint_restore": 40,
	} {
		if got, ok := abi.CapabilityByName(name); !ok || got != want {
			t.Errorf("CapabilityByName(%q): got %d, %v, want %d", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "CAP_", "CAP_CAP_CHOWN", "root"} {
		if got, ok := abi.CapabilityByName(name); ok {
			t.Errorf("CapabilityByName(%q): got %d, want none", name, got)
		}
	}
	if name, ok := abi.CapabilityName(41); ok {
		t.Errorf("capability 41 has the name %q, want none", name)
	}
}
