package policy

import "time"

const durationHint = `write a number with a unit: "500ms", "30s", "5m", "1h30m"`

// ParseDuration parses a positive duration of whole milliseconds, in Go's notation.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, grammarErrorf("duration", durationHint, "%q is not a duration", s)
	case d <= 0:
		return 0, grammarErrorf("duration", "leave the field out for no limit", "%q is not above zero", s)
	case d%time.Millisecond != 0:
		return 0, grammarErrorf("duration", "", "%q is finer than a millisecond", s)
	}
	return d, nil
}

// ParseTime parses an RFC 3339 time and returns it in UTC, so that equal instants are equal values.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, grammarErrorf("time", `for example "2000-01-01T00:00:00Z"`, "%q is not an RFC 3339 time", s)
	}
	if t.Nanosecond() != 0 {
		return time.Time{}, grammarErrorf("time", "write whole seconds", "%q is finer than a second", s)
	}
	return t.UTC(), nil
}
