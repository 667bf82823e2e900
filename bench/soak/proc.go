package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// field is a number of /proc/<pid>/status.
func field(status []byte, key string) int {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			first, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
			n, _ := strconv.Atoi(string(first))
			return n
		}
	}
	return 0
}

func entries(dir string) (int, error) {
	list, err := os.ReadDir(dir)
	return len(list), err
}

// zombies counts the children of a process that are dead and not reaped.
func zombies(pid int) (n int, err error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue // the thread ended
		}
		for child := range bytes.FieldsSeq(children) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", child))
			if err == nil && bytes.Contains(stat, []byte(") Z ")) {
				n++
			}
		}
	}
	return n, nil
}
