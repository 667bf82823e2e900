package policy

import (
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/glob"
)

// maxPath is the longest path that the kernel takes, without the final NUL (linux/limits.h, PATH_MAX).
const maxPath = 4095

// ParsePath checks an absolute path, which may begin with or contain parameters ("${cwd}/x"), and returns it without
// a trailing slash. The result is lexically clean; what it names is not looked at. A path that climbs ("..") is
// refused instead of resolved, since the kernel resolves ".." after symbolic links and a reader does not.
func ParsePath(s string) (string, error) {
	if s == "" {
		return "", grammarErrorf("path", "", "path is empty")
	}
	if err := CheckText(s); err != nil {
		return "", err
	}
	if len(s) > maxPath {
		return "", grammarErrorf("path", "", "path has %d bytes, at most %d are allowed", len(s), maxPath)
	}
	if err := checkTemplate(s); err != nil {
		return "", err
	}
	if !startsAbsolute(s) {
		return "", grammarErrorf("path", `paths start with "/" or a parameter such as "${cwd}"`, "path %q is not absolute", s)
	}
	if trimmed, ok := strings.CutSuffix(s, "/"); ok && trimmed != "" && !strings.HasSuffix(trimmed, "/") {
		s = trimmed
	}
	if err := checkElements(s); err != nil {
		return "", err
	}
	return s, nil
}

// startsAbsolute holds for "/…", and for "${name}" as a whole first element.
func startsAbsolute(s string) bool {
	if s[0] == '/' {
		return true
	}
	if !strings.HasPrefix(s, "${") {
		return false
	}
	_, rest, _ := strings.Cut(s, "}")
	return rest == "" || rest[0] == '/'
}

func checkElements(s string) error {
	rest := strings.TrimPrefix(s, "/")
	if s == "/" {
		return nil
	}
	for elem := range strings.SplitSeq(rest, "/") {
		switch elem {
		case "":
			return grammarErrorf("path", "", `path %q contains "//"`, s)
		case ".", "..":
			return grammarErrorf("path", "write the path that is meant", "path %q contains a %q element", s, elem)
		}
	}
	return nil
}

// checkTemplate checks the notation of the parameters in s; that they are declared is for compiler/check to see.
func checkTemplate(s string) error {
	if _, err := ir.Names(s); err != nil {
		return grammarErrorf("template", `a parameter is written "${name}"`, "%v", err)
	}
	return nil
}

// ParseTemplate checks a text that may contain parameters.
func ParseTemplate(s string) (string, error) {
	if strings.ContainsRune(s, 0) {
		return "", grammarErrorf("text", "", "%q contains a NUL byte", s)
	}
	return s, checkTemplate(s)
}

// ParseGlob checks a pattern of paths (see ir/glob).
func ParseGlob(s string) (string, error) {
	if err := CheckText(s); err != nil {
		return "", err
	}
	if len(s) > maxPath {
		return "", grammarErrorf("glob", "", "pattern has %d bytes, at most %d are allowed", len(s), maxPath)
	}
	if err := glob.Valid(s); err != nil {
		return "", grammarErrorf("glob", "", "%v", err)
	}
	return s, checkTemplate(s)
}

// ParseMount splits the short form of a mount, "/target:/source" with an optional ":ro" or ":rw". As in container
// tools the suffix is taken off first and the rest split at the first colon, so the source may contain colons.
func ParseMount(s string) (target, source, mode string, err error) {
	mode, body := "rw", s
	if b, ok := strings.CutSuffix(s, ":ro"); ok {
		mode, body = "ro", b
	} else if b, ok := strings.CutSuffix(s, ":rw"); ok {
		body = b
	}
	target, source, ok := strings.Cut(body, ":")
	if !ok || target == "" || source == "" {
		return "", "", "", grammarErrorf("mount", `write "/target:/source" or "/target:/source:ro"`, "%q is not a mount", s)
	}
	if target, err = ParsePath(target); err != nil {
		return "", "", "", err
	}
	if source, err = ParsePath(source); err != nil {
		return "", "", "", err
	}
	return target, source, mode, nil
}

// maxNameBytes is the longest host name (linux/utsname.h, __NEW_UTS_LEN).
const maxNameBytes = 64

// CheckName checks the name of a policy.
func CheckName(s string) error {
	if err := CheckText(s); err != nil {
		return err
	}
	if s == "" || len(s) > maxNameBytes {
		return grammarErrorf("name", "", "name %q has %d bytes, 1 to %d are allowed", s, len(s), maxNameBytes)
	}
	if s == "." || s == ".." || strings.Contains(s, "/") {
		return grammarErrorf("name", "", `name %q is "." or ".." or contains "/"`, s)
	}
	return nil
}

// ParseName is [CheckName] as a parser.
func ParseName(s string) (string, error) { return s, CheckName(s) }
