package policy

import (
	"math"
	"math/bits"
	"strconv"
	"strings"
)

const sizeHint = `write bytes as a number, or "512K", "512M", "1G" (1024-based)`

// ParseSize parses a number of bytes: digits, optionally followed by K, M or G in either case (1024-based). Spaces
// around it are ignored.
func ParseSize(s string) (uint64, error) {
	digits, unit := strings.TrimSpace(s), uint64(1)
	if n := len(digits); n > 0 {
		switch digits[n-1] {
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit > 1 {
			digits = digits[:n-1]
		}
	}
	if !allDigits(digits) {
		return 0, grammarErrorf("size", sizeHint, "%q is not a size", s)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	hi, bytes := bits.Mul64(n, unit)
	if err != nil || hi != 0 {
		return 0, grammarErrorf("size", "", "%s is out of range, the largest size is %d bytes", strings.TrimSpace(s), uint64(math.MaxUint64))
	}
	return bytes, nil
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
