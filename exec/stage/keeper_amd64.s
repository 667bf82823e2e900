#include "textflag.h"

// func cloneKeeper(flags, stack, k, function uintptr) (pid, errno uintptr)
// The child has another stack, so it never returns: it calls the function, which does not. ABIInternal has the first argument
// in AX, zero in X15 and g in R14, where it still is.
TEXT ·cloneKeeper(SB),NOSPLIT|NOFRAME,$0-48
	MOVQ	flags+0(FP), DI
	MOVQ	stack+8(FP), SI
	MOVQ	k+16(FP), R13
	MOVQ	function+24(FP), R12
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$56, AX // clone
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	MOVQ	$-1, pid+32(FP)
	NEGQ	AX
	MOVQ	AX, errno+40(FP)
	RET
ok:
	MOVQ	AX, pid+32(FP)
	MOVQ	$0, errno+40(FP)
	RET
child:
	XORL	BP, BP
	XORPS	X15, X15
	MOVQ	R13, AX
	CALL	R12
	INT	$3
