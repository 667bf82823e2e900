#include "textflag.h"

// func cloneKeeper(flags, stack, k uintptr) (pid, errno uintptr)
// The child has another stack, so it never returns: it calls keep, which does not.
TEXT ·cloneKeeper(SB),NOSPLIT|NOFRAME,$0-40
	MOVD	flags+0(FP), R0
	MOVD	stack+8(FP), R1
	MOVD	k+16(FP), R19
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$220, R8 // clone
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCC	ok
	MOVD	$-1, R4
	MOVD	R4, pid+24(FP)
	NEG	R0, R0
	MOVD	R0, errno+32(FP)
	RET
ok:
	MOVD	R0, pid+24(FP)
	MOVD	ZR, errno+32(FP)
	RET
child:
	MOVD	ZR, R29
	MOVD	R19, 8(RSP)
	CALL	·keep(SB)
	BRK
