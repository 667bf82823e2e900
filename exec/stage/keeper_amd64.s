#include "textflag.h"

// func cloneKeeper(flags, stack, k uintptr) (pid, errno uintptr)
// The child has another stack, so it never returns: it calls keep, which does not.
TEXT ·cloneKeeper(SB),NOSPLIT|NOFRAME,$0-40
	MOVQ	flags+0(FP), DI
	MOVQ	stack+8(FP), SI
	MOVQ	k+16(FP), R13
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$56, AX // clone
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	MOVQ	$-1, pid+24(FP)
	NEGQ	AX
	MOVQ	AX, errno+32(FP)
	RET
ok:
	MOVQ	AX, pid+24(FP)
	MOVQ	$0, errno+32(FP)
	RET
child:
	XORL	BP, BP
	MOVQ	R13, 0(SP)
	CALL	·keep(SB)
	INT	$3
