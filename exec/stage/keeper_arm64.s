#include "textflag.h"

// func cloneKeeper(flags, stack, k, function uintptr) (pid, errno uintptr)
// The child has another stack, so it never returns: it calls the function, which does not. ABIInternal has the first argument
// in R0 and g in R28, where it still is.
TEXT ·cloneKeeper(SB),NOSPLIT|NOFRAME,$0-48
	MOVD	flags+0(FP), R0
	MOVD	stack+8(FP), R1
	MOVD	k+16(FP), R19
	MOVD	function+24(FP), R20
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$220, R8 // clone
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCC	ok
	MOVD	$-1, R4
	MOVD	R4, pid+32(FP)
	NEG	R0, R0
	MOVD	R0, errno+40(FP)
	RET
ok:
	MOVD	R0, pid+32(FP)
	MOVD	ZR, errno+40(FP)
	RET
child:
	MOVD	ZR, R29
	MOVD	R19, R0
	CALL	(R20)
	BRK
