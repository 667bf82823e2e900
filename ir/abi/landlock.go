package abi

import (
	"math/bits"
	"strconv"
)

// LatestLandlock is the newest Landlock ABI whose rights this package names.
const LatestLandlock = 11

// right is one Landlock access right or scope: its name as in linux/landlock.h without the prefix, in lower case,
// and the ABI that introduced it.
type right struct {
	bit   uint64
	name  string
	since int
}

var fsRights = []right{
	{FSExecute, "execute", 1},
	{FSWriteFile, "write_file", 1},
	{FSReadFile, "read_file", 1},
	{FSReadDir, "read_dir", 1},
	{FSRemoveDir, "remove_dir", 1},
	{FSRemoveFile, "remove_file", 1},
	{FSMakeChar, "make_char", 1},
	{FSMakeDir, "make_dir", 1},
	{FSMakeReg, "make_reg", 1},
	{FSMakeSock, "make_sock", 1},
	{FSMakeFifo, "make_fifo", 1},
	{FSMakeBlock, "make_block", 1},
	{FSMakeSym, "make_sym", 1},
	{FSRefer, "refer", 2},
	{FSTruncate, "truncate", 3},
	{FSIoctlDev, "ioctl_dev", 5},
	{FSResolveUnix, "resolve_unix", 9},
}

var netRights = []right{
	{NetBindTCP, "bind_tcp", 4},
	{NetConnectTCP, "connect_tcp", 4},
	{NetBindUDP, "bind_udp", 10},
	{NetConnectSendUDP, "connect_send_udp", 10},
}

var scopes = []right{
	{ScopeAbstractUnix, "abstract_unix", 6},
	{ScopeSignal, "signal", 6},
}

// Supported returns the rights and scopes that a Landlock ABI knows. ABIs after [LatestLandlock] keep all of them.
func Supported(abiVersion int) (fs, net, scoped uint64) {
	return supported(fsRights, abiVersion), supported(netRights, abiVersion), supported(scopes, abiVersion)
}

func supported(rights []right, abiVersion int) (mask uint64) {
	for _, r := range rights {
		if r.since <= abiVersion {
			mask |= r.bit
		}
	}
	return mask
}

// FSRightName returns the name of a single filesystem right.
func FSRightName(bit uint64) (name string, ok bool) { return rightName(fsRights, bit) }

// NetRightName returns the name of a single network right.
func NetRightName(bit uint64) (name string, ok bool) { return rightName(netRights, bit) }

// ScopeName returns the name of a single scope.
func ScopeName(bit uint64) (name string, ok bool) { return rightName(scopes, bit) }

func rightName(rights []right, bit uint64) (string, bool) {
	for _, r := range rights {
		if r.bit == bit {
			return r.name, true
		}
	}
	return "", false
}

// FSRightByName is the inverse of [FSRightName].
func FSRightByName(name string) (bit uint64, ok bool) { return rightByName(fsRights, name) }

// NetRightByName is the inverse of [NetRightName].
func NetRightByName(name string) (bit uint64, ok bool) { return rightByName(netRights, name) }

// ScopeByName is the inverse of [ScopeName].
func ScopeByName(name string) (bit uint64, ok bool) { return rightByName(scopes, name) }

func rightByName(rights []right, name string) (uint64, bool) {
	for _, r := range rights {
		if r.name == name {
			return r.bit, true
		}
	}
	return 0, false
}

// FSRightNames returns the names of the rights in a mask, lowest bit first; a bit without a name is "bit_N".
func FSRightNames(mask uint64) []string { return rightNames(fsRights, mask) }

// NetRightNames is [FSRightNames] for network rights.
func NetRightNames(mask uint64) []string { return rightNames(netRights, mask) }

// ScopeNames is [FSRightNames] for scopes.
func ScopeNames(mask uint64) []string { return rightNames(scopes, mask) }

func rightNames(rights []right, mask uint64) []string {
	var names []string
	for ; mask != 0; mask &= mask - 1 {
		bit := mask & -mask
		name, ok := rightName(rights, bit)
		if !ok {
			name = "bit_" + strconv.Itoa(bits.TrailingZeros64(bit))
		}
		names = append(names, name)
	}
	return names
}
