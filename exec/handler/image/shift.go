package image

import (
	"encoding/binary"
	"math"

	"github.com/sandlock-go/sandlock/ir/abi"
)

// Shift is what is added to CLOCK_BOOTTIME to get the time of day that the sandbox is shown. Nanoseconds are from 0 to
// 999999999.
type Shift struct{ Seconds, Nanoseconds int64 }

const second = 1e9

// The stubs that follow compute the shown time in the process itself: asking the supervisor takes twenty times as long.
// They read CLOCK_BOOTTIME, which nobody is told a lie about, and add the shift; what they leave to the kernel is trapped.
// Registers are those that a function may destroy.

// amd64ClockGettime is clock_gettime(clock, time).
func amd64ClockGettime(s Shift) []byte {
	code := []byte{
		0x85, 0xff, // test edi, edi: CLOCK_REALTIME
		0x74, 0x0d, // je shown
		0x83, 0xff, 0x05, // cmp edi, 5: CLOCK_REALTIME_COARSE
		0x74, 0x08, // je shown
	}
	code = append(code, amd64Call(228)...)
	// shown:
	code = append(code,
		0xbf, 0x07, 0x00, 0x00, 0x00, // mov edi, 7: CLOCK_BOOTTIME
		0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228
		0x0f, 0x05, // syscall
		0x48, 0x85, 0xc0, // test rax, rax
		0x75, 0x2d, // jne end
		0x48, 0xb9) // mov rcx, seconds
	code = binary.LittleEndian.AppendUint64(code, uint64(s.Seconds))
	code = append(code, 0xba) // mov edx, nanoseconds
	code = binary.LittleEndian.AppendUint32(code, uint32(s.Nanoseconds))
	return append(code,
		0x48, 0x03, 0x56, 0x08, // add rdx, [rsi+8]
		0x48, 0x81, 0xfa, 0x00, 0xca, 0x9a, 0x3b, // cmp rdx, 1000000000
		0x72, 0x0a, // jb store
		0x48, 0x81, 0xea, 0x00, 0xca, 0x9a, 0x3b, // sub rdx, 1000000000
		0x48, 0xff, 0xc1, // inc rcx
		// store:
		0x48, 0x01, 0x0e, // add [rsi], rcx
		0x48, 0x89, 0x56, 0x08, // mov [rsi+8], rdx
		// end:
		0xc3) // ret
}

// amd64Gettimeofday is gettimeofday(time, zone). The kernel answers it with a zone, or without a time.
func amd64Gettimeofday(s Shift) []byte {
	code := []byte{
		0x48, 0x85, 0xff, // test rdi, rdi
		0x74, 0x50, // je call
		0x48, 0x85, 0xf6, // test rsi, rsi
		0x75, 0x4b, // jne call
		0x48, 0x89, 0xfe, // mov rsi, rdi
		0xbf, 0x07, 0x00, 0x00, 0x00, // mov edi, 7: CLOCK_BOOTTIME
		0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228: clock_gettime
		0x0f, 0x05, // syscall
		0x48, 0x85, 0xc0, // test rax, rax
		0x75, 0x36, // jne end
		0x48, 0xb9, // mov rcx, seconds
	}
	code = binary.LittleEndian.AppendUint64(code, uint64(s.Seconds))
	code = append(code, 0xb8) // mov eax, nanoseconds
	code = binary.LittleEndian.AppendUint32(code, uint32(s.Nanoseconds))
	code = append(code,
		0x48, 0x03, 0x46, 0x08, // add rax, [rsi+8]
		0x48, 0x3d, 0x00, 0xca, 0x9a, 0x3b, // cmp rax, 1000000000
		0x72, 0x09, // jb store
		0x48, 0x2d, 0x00, 0xca, 0x9a, 0x3b, // sub rax, 1000000000
		0x48, 0xff, 0xc1, // inc rcx
		// store:
		0x48, 0x01, 0x0e, // add [rsi], rcx
		0x31, 0xd2, // xor edx, edx
		0xb9, 0xe8, 0x03, 0x00, 0x00, // mov ecx, 1000
		0xf7, 0xf1, // div ecx
		0x48, 0x89, 0x46, 0x08, // mov [rsi+8], rax
		0x31, 0xc0, // xor eax, eax
		// end:
		0xc3) // ret
	return append(code, amd64Call(96)...) // call:
}

// amd64Time is time(t), nil where the shift needs more than 32 bits: the function has little room.
func amd64Time(s Shift) []byte {
	if s.Seconds <= math.MinInt32 || s.Seconds >= math.MaxInt32 {
		return nil
	}
	code := []byte{
		0x57,                   // push rdi
		0x48, 0x83, 0xec, 0x10, // sub rsp, 16
		0x48, 0x89, 0xe6, // mov rsi, rsp
		0xbf, 0x07, 0x00, 0x00, 0x00, // mov edi, 7: CLOCK_BOOTTIME
		0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228: clock_gettime
		0x0f, 0x05, // syscall
		0x58,       // pop rax: seconds
		0x5a,       // pop rdx: nanoseconds
		0x5f,       // pop rdi
		0x81, 0xfa, // cmp edx, the nanoseconds from which the sum is a second more: sets carry where it is not
	}
	code = binary.LittleEndian.AppendUint32(code, uint32(second-s.Nanoseconds))
	code = append(code, 0x48, 0x1d) // sbb rax, -seconds-1
	code = binary.LittleEndian.AppendUint32(code, uint32(int32(-s.Seconds-1)))
	return append(code,
		0x48, 0x85, 0xff, // test rdi, rdi
		0x74, 0x03, // je end
		0x48, 0x89, 0x07, // mov [rdi], rax
		// end:
		0xc3) // ret
}

// arm64Sum reads CLOCK_BOOTTIME into what x1 points to, and adds the shift: x2 are then seconds and x3 nanoseconds. last
// is how many instructions behind the sum the function's end is, where a failed call goes.
func arm64Sum(s Shift, last uint32) []byte {
	seconds, nanoseconds := uint64(s.Seconds), uint64(s.Nanoseconds)
	const rest = 16 // instructions from the branch on
	return arm64(
		0xd28000e0, // mov x0, #7: CLOCK_BOOTTIME
		arm64Number(113),
		arm64Syscall,
		0xb5000000|(rest+last)<<5, // cbnz x0, end
		0xa9400c22,                // ldp x2, x3, [x1]
		0xd2800004|arm64Half(seconds, 0),
		0xf2a00004|arm64Half(seconds, 1),
		0xf2c00004|arm64Half(seconds, 2),
		0xf2e00004|arm64Half(seconds, 3),
		0xd2800005|arm64Half(nanoseconds, 0),
		0xf2a00005|arm64Half(nanoseconds, 1),
		0xd2800006|arm64Half(second, 0),
		0xf2a00006|arm64Half(second, 1),
		0x8b040042, // add x2, x2, x4
		0x8b050063, // add x3, x3, x5
		0xeb06007f, // cmp x3, x6
		0x54000063, // b.lo 3 instructions ahead
		0xcb060063, // sub x3, x3, x6
		0x91000442, // add x2, x2, #1
	)
}

// arm64Half is the immediate of movz and movk for 16 bits of a number.
func arm64Half(n uint64, which uint) uint32 { return uint32(n>>(16*which)) & 0xffff << 5 }

const arm64Store = 0xa9000c22 // stp x2, x3, [x1]

// arm64ClockGettime is clock_gettime(clock, time).
func arm64ClockGettime(s Shift) []byte {
	code := arm64(
		arm64Landing,
		0x340000c0, // cbz w0, shown: CLOCK_REALTIME
		0x7100141f, // cmp w0, #5: CLOCK_REALTIME_COARSE
		0x54000080, // b.eq shown
		arm64Number(113),
		arm64Syscall,
		arm64Return,
	)
	// shown:
	code = append(code, arm64Sum(s, 1)...)
	return append(code, arm64(arm64Store, arm64Return)...)
}

// arm64Gettimeofday is gettimeofday(time, zone). The kernel answers it with a zone, or without a time.
func arm64Gettimeofday(s Shift) []byte {
	code := arm64(
		arm64Landing,
		0xb4000340, // cbz x0, call
		0xb5000321, // cbnz x1, call
		0xaa0003e1, // mov x1, x0
	)
	code = append(code, arm64Sum(s, 3)...)
	return append(code, arm64(
		0xd2807d06, // mov x6, #1000
		0x9ac60863, // udiv x3, x3, x6
		arm64Store,
		arm64Return,
		arm64Number(169), // call:
		arm64Syscall,
		arm64Return,
	)...)
}

// clockStubs make reading the time of day show the shifted time: in the process where there is room for that, by system
// calls where there is not. clock_getres tells no time and stays.
func clockStubs(arch abi.Arch, s Shift) []stub {
	if arch == abi.ARM64 {
		return []stub{
			{[]string{"__kernel_clock_gettime"}, [][]byte{arm64ClockGettime(s), arm64Call(113)}},
			{[]string{"__kernel_gettimeofday"}, [][]byte{arm64Gettimeofday(s), arm64Call(169)}},
		}
	}
	return []stub{
		{[]string{"__vdso_clock_gettime", "clock_gettime"}, [][]byte{amd64ClockGettime(s), amd64Call(228)}},
		{[]string{"__vdso_gettimeofday", "gettimeofday"}, [][]byte{amd64Gettimeofday(s), amd64Call(96)}},
		{[]string{"__vdso_time", "time"}, [][]byte{amd64Time(s), amd64Call(201)}},
	}
}
