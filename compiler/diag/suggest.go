package diag

import "slices"

// Suggest returns the candidate that a mistyped name most likely means: the closest within two slips of the keyboard,
// the first in order among equals. Very short names are not guessed.
func Suggest(name string, candidates []string) (best string, ok bool) {
	limit := min(2, len(name)/2)
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if d := slips(name, c, limit); d <= limit && c != name {
			if best, ok, limit = c, true, d-1; limit < 0 {
				break
			}
		}
	}
	return best, ok
}

// slips counts the letters to insert, remove, replace or swap with their neighbour to turn a into b (optimal string
// alignment). It gives up above limit.
func slips(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
