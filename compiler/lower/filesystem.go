package lower

import (
	"cmp"
	"slices"

	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var filesystemFields = []string{"filesystem.read", "filesystem.write", "filesystem.rules", "filesystem.proc"}

// Filesystem lowers path grants to Landlock rules. Rights that make sense for directories only stay in the masks: the
// compiler cannot know what a path will be, so the executor takes them out where it finds a file.
func Filesystem(u *Unit) {
	fs, handled := &u.Policy.Filesystem, u.Program.Landlock.Handled.FS
	for _, it := range fs.Read.Items {
		grantPath(u, it, ir.ReadRights(handled))
	}
	for _, it := range fs.Write.Items {
		grantPath(u, it, ir.WriteRights(handled))
	}
	for _, it := range fs.Rules.Items {
		access := AccessMask(it.V.Access.Values()) & handled // what is not handled is not restricted
		addPath(u, ir.PathRule{Path: it.V.Path.V, Access: access, Kind: pathKind(it.V.Optional.V), Origin: u.ref(it.Origin)})
	}
	u.Filter.WriteGrants = writesAnything(u)
}

func writesAnything(u *Unit) bool {
	return slices.ContainsFunc(u.Program.Landlock.Paths, func(r ir.PathRule) bool { return r.Access&abi.FSWriteFile != 0 })
}

func grantPath(u *Unit, it policy.Val[policy.PathRule], access uint64) {
	addPath(u, ir.PathRule{Path: it.V.Path.V, Access: access, Kind: pathKind(it.V.Optional.V), Origin: u.ref(it.Origin)})
}

// AccessMask returns the rights of a list of names.
func AccessMask(names []string) (mask uint64) {
	for _, name := range names {
		bit, _ := abi.FSRightByName(name)
		mask |= bit
	}
	return mask
}

func pathKind(optional bool) ir.PathKind {
	if optional {
		return ir.PathOptional
	}
	return ir.PathRequired
}

// addPath adds a rule, or widens the rule that the path has already: the kernel would unite them in any case, and a
// reader should see one line a path. A path that any rule requires stays required.
func addPath(u *Unit, r ir.PathRule) {
	paths := &u.Program.Landlock.Paths
	i, found := slices.BinarySearchFunc(*paths, r, func(a, b ir.PathRule) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(boolRank(a.Kind == ir.PathNumbered), boolRank(b.Kind == ir.PathNumbered)))
	})
	if !found {
		*paths = slices.Insert(*paths, i, r)
		return
	}
	(*paths)[i].Access |= r.Access
	(*paths)[i].Kind = min((*paths)[i].Kind, r.Kind)
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}
