package ir

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/glob"
)

// maxID is the highest user or group id: the one above it means "no change" to the kernel (setresuid(2)).
const maxID = math.MaxUint32 - 1

// checkView holds what the executor relies on when it makes namespaces and mounts.
func (p *Program) checkView() error {
	v := &p.View
	if asks := v.Mount || v.MapIDs; asks != p.Namespaced() {
		return fmt.Errorf("start %d, and namespaces asked for: %v", p.Process.Start, asks)
	}
	switch {
	case !v.MapIDs && (v.UID != 0 || v.GID != 0 || v.MapOrigin != 0):
		return errors.New("ids without a mapping")
	case v.UID > maxID || v.GID > maxID:
		return fmt.Errorf("ids %d and %d, at most %d is one", v.UID, v.GID, uint32(maxID))
	case !v.Mount && v.mounts():
		return errors.New("something to be mounted or hidden, and no mount namespace")
	case v.Optional && (v.MapIDs || v.Root != "" || v.Proc != ProcHost || v.Tmp || len(v.Mounts)+len(v.Deny)+len(v.Protect) > 0):
		return errors.New("optional, with what must not be left out")
	case v.Proc > ProcAuto:
		return fmt.Errorf("proc %d is unknown", v.Proc)
	case v.Proc != ProcHost && !v.PID:
		return errors.New("an own /proc shows a PID namespace, and there is none")
	case v.Sys && v.Root == "":
		return errors.New("/sys for another root, and there is none")
	case v.Root == "/":
		return errors.New("root is the one that it is to replace")
	case v.Net && (p.Net.DecidesDestinations() || p.HTTP.On() || len(p.Landlock.Ports) > 0):
		return errors.New("destinations and ports in a network namespace without a network")
	}
	if v.Root != "" {
		if err := p.checkPath(v.Root); err != nil {
			return fmt.Errorf("root: %w", err)
		}
	}
	for _, list := range []struct {
		name  string
		check func() error
	}{
		{"mounts", p.checkMounts},
		{"deny", func() error { return p.checkViewPaths(v.Deny, p.checkDenied) }},
		{"protect", func() error { return p.checkViewPaths(v.Protect, p.checkProtect) }},
		{"masks", func() error { return checkNames(v.Masks, "path", checkKernelPath) }},
		{"read_only", func() error { return checkNames(v.ReadOnly, "path", checkKernelPath) }},
	} {
		if err := list.check(); err != nil {
			return fmt.Errorf("%s: %w", list.name, err)
		}
	}
	return p.checkRefs(map[string]OriginRef{"root": v.RootOrigin, "tmp": v.TmpOrigin, "proc": v.ProcOrigin, "ids": v.MapOrigin})
}

// mounts reports whether anything needs a mount namespace.
func (v *View) mounts() bool {
	lists := len(v.Mounts) + len(v.Deny) + len(v.Protect) + len(v.Masks) + len(v.ReadOnly)
	origins := v.RootOrigin | v.TmpOrigin | v.ProcOrigin
	return v.PID || v.Net || v.Root != "" || v.Proc != ProcHost || v.Tmp || v.Dev || v.Sys || lists > 0 || origins != 0
}

func (p *Program) checkMounts() error {
	list := p.View.Mounts
	if len(list) > maxList {
		return tooMany(len(list), maxList)
	}
	seen := map[string]bool{}
	for i := range list {
		m := &list[i]
		for _, t := range []Template{m.Target, m.Source} {
			if err := p.checkPath(t); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		}
		if m.Target == "/" {
			return fmt.Errorf("[%d]: %q over the whole root", i, m.Source)
		}
		if seen[m.Target] {
			return fmt.Errorf("[%d]: another mount at %q", i, m.Target)
		}
		seen[m.Target] = true
		if err := p.checkOrigin(m.Origin); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

func (p *Program) checkViewPaths(list []ViewPath, check func(Template) error) error {
	if len(list) > maxList {
		return tooMany(len(list), maxList)
	}
	for i := range list {
		err := check(list[i].Path)
		if err == nil {
			err = p.checkOrigin(list[i].Origin)
		}
		if err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

func (p *Program) checkDenied(t Template) error {
	if t == "/" {
		return errors.New("everything is denied")
	}
	return p.checkPath(t)
}

// checkProtect holds for patterns that are relative to each write grant, and for absolute ones (see [AbsolutePattern]).
func (p *Program) checkProtect(t Template) error {
	if len(t) > MaxPath {
		return fmt.Errorf("pattern of %d bytes, at most %d are allowed", len(t), MaxPath)
	}
	if err := glob.Valid(t); err != nil {
		return err
	}
	if err := checkText(t); err != nil {
		return fmt.Errorf("pattern %q: %w", t, err)
	}
	literal, first, after, err := cutName(t)
	if err != nil {
		return fmt.Errorf("pattern %q: %w", t, err)
	}
	if first != "" && literal == "" && (!p.isPathName(first) || after != "" && after[0] != '/') {
		return fmt.Errorf("pattern %q does not begin with a parameter that is a path", t)
	}
	return p.checkTemplateNames(t)
}

// checkKernelPath holds for absolute, lexically clean paths without parameters.
func checkKernelPath(s string) error {
	if s == "/" || !strings.HasPrefix(s, "/") || path.Clean(s) != s || len(s) > MaxPath || strings.Contains(s, "${") {
		return errors.New("not absolute and lexically clean")
	}
	return checkText(s)
}

// AbsolutePattern reports whether a pattern of [View.Protect] is one of the command's name space. Others are relative to
// each write grant (see [PathRule.Writes]).
func AbsolutePattern(t Template) bool { return strings.HasPrefix(t, "/") || strings.HasPrefix(t, "${") }

// ExpandProtect expands a pattern of [View.Protect]. The result is always a pattern: what a value brings in is escaped, so
// that it stands for itself.
func ExpandProtect(t Template, lookup Lookup) (string, error) {
	s, err := expand(t, func(name string) (string, bool) {
		value, ok := lookup(name)
		if strings.HasPrefix(value, "/") {
			value = path.Clean(value)
		}
		return glob.Escape(value), ok
	}, func(value string) error {
		if value == "" || value == "." || value == ".." {
			return fmt.Errorf("value %q in a path", value)
		}
		return nil
	})
	if err == nil && strings.HasPrefix(s, "//") {
		s = s[1:] // a value that is the root
	}
	if err == nil {
		err = glob.Valid(s)
	}
	if err == nil && AbsolutePattern(t) && s[0] != '/' {
		err = errors.New("not absolute")
	}
	if err != nil {
		return "", fmt.Errorf("expand pattern %q: %w", t, err)
	}
	return s, nil
}

// Writes reports whether the rule grants a change of what lies beneath it. Patterns that are not absolute are relative to
// such rules.
func (r *PathRule) Writes() bool {
	const looks = abi.FSRead | abi.FSIoctlDev | abi.FSResolveUnix
	return r.Access&^looks != 0 && r.Kind != PathNumbered
}
