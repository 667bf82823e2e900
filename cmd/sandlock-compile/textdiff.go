package main

import "strings"

// lineDiff returns the lines that differ, marked "-" and "+", each with some lines around it. "" means equal.
func lineDiff(before, after string, around int) string {
	edits := diffLines(strings.Split(strings.TrimSuffix(before, "\n"), "\n"), strings.Split(strings.TrimSuffix(after, "\n"), "\n"))
	shown := make([]bool, len(edits))
	changed := false
	for i, e := range edits {
		if e.mark == ' ' {
			continue
		}
		changed = true
		for j := max(0, i-around); j <= min(len(edits)-1, i+around); j++ {
			shown[j] = true
		}
	}
	if !changed {
		return ""
	}
	var b strings.Builder
	for i, e := range edits {
		switch {
		case shown[i]:
			b.WriteString(strings.TrimRight(string(e.mark)+" "+e.line, " ") + "\n")
		case i == 0 || shown[i-1]:
			b.WriteString("…\n")
		}
	}
	return b.String()
}

// edit is one line of a diff: kept (' '), removed ('-') or added ('+').
type edit struct {
	mark rune
	line string
}

// diffLines finds a longest common subsequence. Dumps have some hundred lines, so the quadratic table is small; what
// they have in common at both ends is left out of it.
func diffLines(a, b []string) []edit {
	var head, tail []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail = append([]edit{{' ', a[len(a)-1]}}, tail...)
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	common := make([][]int, len(a)+1) // [i][j]: of a[i:] and b[j:]
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	middle := head
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			middle = append(middle, edit{' ', a[i]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			middle = append(middle, edit{'-', a[i]})
			i++
		default:
			middle = append(middle, edit{'+', b[j]})
			j++
		}
	}
	return append(middle, tail...)
}
