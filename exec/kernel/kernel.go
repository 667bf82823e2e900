// Package kernel is the executor's only door to the kernel interfaces that the standard library lacks: Landlock,
// seccomp listeners, other processes' memory and descriptors, capabilities, and what /proc says of a process.
//
// In: numbers and descriptors. Out: thin, documented calls with errors that wrap the errno. It decides nothing about
// policy. All unsafe code and every ioctl of the executor is here or in exec/stage.
//
// Read next: landlock.go, notify.go, process.go; probe.go for what a host offers.
package kernel
