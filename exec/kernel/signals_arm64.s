#include "textflag.h"

// A signal handler (sigaction(2)): R0 is the signal. It runs on the alternate stack of whatever thread the kernel picks
// and calls nothing but write(2), whose error does not matter: a full pipe has enough to tell. It returns into the vDSO's
// rt_sigreturn, which restores all registers.
TEXT catch<>(SB),NOSPLIT|NOFRAME,$0
	SUB	$16, RSP
	MOVB	R0, 0(RSP)
	MOVW	·signalPipe(SB), R0
	MOVD	RSP, R1
	MOVD	$1, R2
	MOVD	$64, R8 // SYS_write
	SVC
	ADD	$16, RSP
	RET

// func catchPC() uintptr
TEXT ·catchPC(SB),NOSPLIT,$0-8
	MOVD	$catch<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// func restorePC() uintptr
TEXT ·restorePC(SB),NOSPLIT,$0-8
	MOVD	ZR, ret+0(FP)
	RET

TEXT nothing<>(SB),NOSPLIT|NOFRAME,$0
	RET

// func nothingPC() uintptr
TEXT ·nothingPC(SB),NOSPLIT,$0-8
	MOVD	$nothing<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET
