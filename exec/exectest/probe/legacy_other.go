//go:build !amd64

package main

const haveLegacy = false

func legacyOpen(string, int) error { return nil }

func legacyCreat(string) error { return nil }
