//go:build !amd64

package main

const haveInt80 = false

func int80(_, _, _, _ uintptr) uintptr { return 0 }
