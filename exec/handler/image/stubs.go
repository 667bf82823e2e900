package image

import (
	"encoding/binary"
	"fmt"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// stub is code that takes the place of a function of the vDSO.
type stub struct {
	names []string // under which the vDSO exports the function
	codes [][]byte // the best first; the first one that has room is taken
}

// randomStubs make getrandom a plain call.
func randomStubs(arch abi.Arch) []stub {
	if arch == abi.ARM64 {
		return []stub{{[]string{"__kernel_getrandom"}, [][]byte{arm64Random()}}}
	}
	return []stub{{[]string{"__vdso_getrandom", "getrandom"}, [][]byte{amd64Random()}}}
}

// amd64Call makes a system call with the arguments as they are: for up to three, functions and system calls pass them in
// the same registers. rcx and r11, which the call destroys, are the callee's to use.
func amd64Call(nr uint32) []byte {
	code := binary.LittleEndian.AppendUint32([]byte{0xb8}, nr) // mov eax, nr
	return append(code,
		0x0f, 0x05, // syscall
		0xc3) // ret
}

// amd64Random is getrandom(buf, len, flags, state, state_len) without its state. A state_len of -1 asks how large a state
// is to be: the answer, -ENOSYS, is that there is no such thing, and C libraries and Go then make the call themselves.
func amd64Random() []byte {
	call := amd64Call(318)
	code := []byte{
		0x49, 0x83, 0xf8, 0xff, // cmp r8, -1
		0x74, byte(len(call)), // je past the call
	}
	code = append(code, call...)
	return append(code,
		0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, // mov rax, -38
		0xc3) // ret
}

// arm64 writes instructions.
func arm64(words ...uint32) (code []byte) {
	for _, w := range words {
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	return code
}

const (
	arm64Landing = 0xd503245f // bti c: functions of the vDSO are called through pointers
	arm64Syscall = 0xd4000001 // svc #0
	arm64Return  = 0xd65f03c0 // ret
)

// arm64Number is mov x8, #nr.
func arm64Number(nr uint16) uint32 { return 0xd2800008 | uint32(nr)<<5 }

func arm64Call(nr uint16) []byte {
	return arm64(arm64Landing, arm64Number(nr), arm64Syscall, arm64Return)
}

// arm64Random is amd64Random in other words.
func arm64Random() []byte {
	return arm64(
		arm64Landing,
		0xb100049f, // cmn x4, #1
		0x54000080, // b.eq 4 instructions ahead
		arm64Number(278),
		arm64Syscall,
		arm64Return,
		0x928004a0, // mov x0, #-38
		arm64Return,
	)
}

// patch is code and where in the vDSO it goes.
type patch struct {
	at   uint64
	code []byte
}

// place finds where the stubs go. A function that this vDSO does not have needs none; one that has no room for its stub
// is an error, since it would go on telling the truth.
func place(image []byte, stubs []stub) ([]patch, error) {
	exported, err := functions(image)
	if err != nil {
		return nil, err
	}
	var patches []patch
	for _, s := range stubs {
		placed := map[uint64]bool{} // several names, one function
		for _, name := range s.names {
			for _, f := range exported {
				if f.name != name || placed[f.at] {
					continue
				}
				code := s.fitting(room(image, exported, f))
				if code == nil {
					return nil, fmt.Errorf("the vDSO's %s has no room for other code", name)
				}
				patches = append(patches, patch{f.at, code})
				placed[f.at] = true
			}
		}
	}
	return patches, nil
}

// fitting returns the first code of a stub that needs no more than room bytes.
func (s stub) fitting(room uint64) []byte {
	for _, code := range s.codes {
		if len(code) > 0 && uint64(len(code)) <= room {
			return code
		}
	}
	return nil
}

// room is how many bytes from a function's start are its own: its size, and padding up to where the next function may
// start. Functions that are not exported may follow, so nothing is padding that does not look like it.
func room(image []byte, exported []symbol, f symbol) uint64 {
	const alignment = 16
	end := f.at + f.size
	for ; end%alignment != 0 && end < uint64(len(image)); end++ {
		if b := image[end]; b != 0x90 && b != 0xcc { // nop, int3
			break
		}
	}
	for _, g := range exported {
		if g.at > f.at && g.at < end {
			end = g.at
		}
	}
	return end - f.at
}
