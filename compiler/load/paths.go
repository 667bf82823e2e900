package load

import (
	"strconv"

	"cuelang.org/go/cue"
)

// trimPath drops the definition that begins the path where the user's value is itself an instance of #Policy.
func trimPath(parts []string) []string {
	for len(parts) > 0 && parts[0] == "#Policy" {
		parts = parts[1:]
	}
	return parts
}

// pathString writes a path of CUE as the rest of the project does: "network.allow[2]", "env.\"A-B\"".
func pathString(parts []string) string {
	path := ""
	for _, part := range parts {
		if _, err := strconv.Atoi(part); err == nil {
			path += "[" + part + "]"
			continue
		}
		path = joinPath(path, unquoteLabel(part))
	}
	return path
}

func isIndex(parts []string) bool {
	if len(parts) == 0 {
		return false
	}
	_, err := strconv.Atoi(parts[len(parts)-1])
	return err == nil
}

func unquoteLabel(part string) string {
	if name, err := strconv.Unquote(part); err == nil {
		return name
	}
	return part
}

func lookupPath(v cue.Value, parts []string) cue.Value {
	if v == (cue.Value{}) {
		return v
	}
	return v.LookupPath(cuePath(parts))
}

func cuePath(parts []string) cue.Path {
	var selectors []cue.Selector
	for _, part := range parts {
		if i, err := strconv.Atoi(part); err == nil && i >= 0 {
			selectors = append(selectors, cue.Index(i))
			continue
		}
		selectors = append(selectors, cue.Str(unquoteLabel(part)))
	}
	return cue.MakePath(selectors...)
}
