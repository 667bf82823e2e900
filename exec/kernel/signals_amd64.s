#include "textflag.h"

// A signal handler (sigaction(2)): DI is the signal. It runs on the alternate stack of whatever thread the kernel picks
// and calls nothing but write(2), whose error does not matter: a full pipe has enough to tell. rt_sigreturn restores all
// registers.
TEXT catch<>(SB),NOSPLIT|NOFRAME,$0
	SUBQ	$16, SP
	MOVB	DI, 0(SP)
	MOVL	·signalPipe(SB), DI
	MOVQ	SP, SI
	MOVL	$1, DX
	MOVL	$1, AX // SYS_write
	SYSCALL
	ADDQ	$16, SP
	RET

TEXT restore<>(SB),NOSPLIT|NOFRAME,$0
	MOVL	$15, AX // SYS_rt_sigreturn
	SYSCALL
	INT	$3 // not reached

// func catchPC() uintptr
TEXT ·catchPC(SB),NOSPLIT,$0-8
	MOVQ	$catch<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// func restorePC() uintptr
TEXT ·restorePC(SB),NOSPLIT,$0-8
	MOVQ	$restore<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

TEXT nothing<>(SB),NOSPLIT|NOFRAME,$0
	RET

// func nothingPC() uintptr
TEXT ·nothingPC(SB),NOSPLIT,$0-8
	MOVQ	$nothing<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
