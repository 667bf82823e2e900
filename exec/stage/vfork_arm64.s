#include "textflag.h"

// func rawClone(flags, pidfd uintptr) (pid, errno uintptr)
// The return address is in R30, a register, so the child that returns first on the shared stack cannot spoil it.
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-32
	MOVD	flags+0(FP), R0
	MOVD	ZR, R1
	MOVD	pidfd+8(FP), R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$220, R8 // SYS_clone
	SVC
	CMN	$4095, R0
	BCC	ok
	MOVD	$-1, R4
	MOVD	R4, pid+16(FP)
	NEG	R0, R0
	MOVD	R0, errno+24(FP)
	RET
ok:
	MOVD	R0, pid+16(FP)
	MOVD	ZR, errno+24(FP)
	RET
