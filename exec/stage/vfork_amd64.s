#include "textflag.h"

// func rawClone(flags, pidfd uintptr) (pid, errno uintptr)
// With CLONE_VM|CLONE_VFORK the child returns first and on the same stack, so it would overwrite the return address:
// it is kept in a register, which each side has its own copy of.
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-32
	MOVQ	flags+0(FP), DI
	MOVQ	pidfd+8(FP), DX
	XORL	SI, SI
	XORL	R10, R10
	XORL	R8, R8
	XORL	R9, R9
	MOVQ	$56, AX // SYS_clone
	POPQ	R12
	SYSCALL
	PUSHQ	R12
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	MOVQ	$-1, pid+16(FP)
	NEGQ	AX
	MOVQ	AX, errno+24(FP)
	RET
ok:
	MOVQ	AX, pid+16(FP)
	MOVQ	$0, errno+24(FP)
	RET
