package main

const haveInt80 = true

func int80(nr, a, b, c uintptr) uintptr
