#include "textflag.h"

// func int80(nr, a, b, c uintptr) uintptr
// The 32-bit entry of asm/entry_64_compat.S: eax is an i386 number, ebx, ecx and edx are its arguments.
TEXT ·int80(SB), NOSPLIT, $0-40
	MOVQ nr+0(FP), AX
	MOVQ a+8(FP), BX
	MOVQ b+16(FP), CX
	MOVQ c+24(FP), DX
	INT  $0x80
	MOVQ AX, ret+32(FP)
	RET
