package load

import (
	"cuelang.org/go/cue"

	"github.com/sandlock-go/sandlock/compiler/policy"
)

func filesystem(n node) policy.Filesystem {
	return policy.Filesystem{
		Read:      list(n.at("read"), pathRule),
		Write:     list(n.at("write"), pathRule),
		Deny:      list(n.at("deny"), pathRule),
		Rules:     list(n.at("rules"), elements("AccessRule", accessRule)),
		Chroot:    path(n.at("chroot")),
		Mount:     list(n.at("mount"), mount),
		Tmp:       word(n.at("tmp")),
		Proc:      word(n.at("proc")),
		Workdir:   path(n.at("workdir")),
		Isolation: word(n.at("isolation")),
		Storage:   path(n.at("storage")),
		OnExit:    word(n.at("on_exit")),
		OnError:   word(n.at("on_error")),
		Protect:   list(n.at("protect"), func(n node) policy.Val[string] { return text(n, policy.ParseGlob) }),
	}
}

// pathRule reads both forms: a path, or a struct. Its origin is the path's: policies have many of these, and asking CUE
// who wrote a struct is what takes longest.
func pathRule(n node) policy.Val[policy.PathRule] {
	n = n.withDefaults("PathRule")
	var r policy.PathRule
	if n.kind() == cue.StructKind {
		r = policy.PathRule{Path: path(n.at("path")), Optional: boolean(n.at("optional"))}
	} else {
		optional := node{d: n.d, path: n.path + ".optional", def: n.d.lookup(n.def, "optional")}
		r = policy.PathRule{Path: path(n.withoutDefaults()), Optional: boolean(optional)}
	}
	val := policy.Val[policy.PathRule]{V: r, Set: r.Path.Set, Origin: r.Path.Origin}
	val.Origin.Path = n.path
	return val
}

func accessRule(n node) policy.AccessRule {
	r := policy.AccessRule{
		Path:     path(n.at("path")),
		Access:   list(n.at("access"), word),
		Optional: boolean(n.at("optional")),
	}
	refuseDuplicates(n.d, r.Access)
	return r
}

// mount reads both forms: "/target:/source:ro", or a struct.
func mount(n node) policy.Val[policy.Mount] {
	n = n.withDefaults("Mount")
	return fixed(n, mountFields(n))
}

func mountFields(n node) policy.Mount {
	if n.kind() == cue.StructKind {
		return policy.Mount{Target: path(n.at("target")), Source: path(n.at("source")), Mode: word(n.at("mode"))}
	}
	var target, source, mode string
	whole := text(n.withoutDefaults(), func(s string) (_ string, err error) {
		target, source, mode, err = policy.ParseMount(s)
		return s, err
	})
	part := func(name, value string) policy.Val[string] {
		v := whole
		v.V, v.Origin.Path = value, joinPath(n.path, name)
		return v
	}
	return policy.Mount{Target: part("target", target), Source: part("source", source), Mode: part("mode", mode)}
}
