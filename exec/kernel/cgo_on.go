//go:build cgo

package kernel

// HasC tells whether this program is linked with C code, whose threads the Go runtime does not know.
const HasC = true
