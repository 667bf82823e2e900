package lower

import (
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
)

var branchFields = []string{
	"filesystem.workdir", "filesystem.isolation", "filesystem.storage", "filesystem.on_exit", "filesystem.on_error", "limits.disk",
}

// Branches reports whether a policy's sandbox keeps changes of its working directory in a branch.
func Branches(p *policy.Policy) bool {
	return p.Filesystem.Workdir.Set && p.Filesystem.Isolation.V != "none"
}

// BranchFS reports whether that branch is one of a BranchFS.
func BranchFS(p *policy.Policy) bool { return Branches(p) && p.Filesystem.Isolation.V == "branchfs" }

var branchActions = map[string]ir.BranchAction{"commit": ir.BranchCommit, "abort": ir.BranchAbort, "keep": ir.BranchKeep}

// Branch lowers the branch of the working directory. It grants nothing: what can be changed there is what can be written.
func Branch(u *Unit) {
	if !Branches(u.Policy) {
		return
	}
	src, disk := &u.Policy.Filesystem, u.Policy.Limits.Disk
	u.Program.Branch = ir.Branch{
		Workdir: src.Workdir.V, Kind: ir.BranchOverlay, Storage: src.Storage.V,
		OnExit: branchActions[src.OnExit.V], OnError: branchActions[src.OnError.V],
		Disk: disk.V, Origin: u.ref(src.Workdir.Origin), DiskOrigin: u.ref(disk.Origin),
	}
	if BranchFS(u.Policy) {
		u.Program.Branch.Kind, u.Program.Branch.Storage = ir.BranchFS, "" // it has its own
		u.Filter.BranchFS, u.Filter.BranchFSOrigin = true, u.ref(src.Isolation.Origin)
	}
	if disk.V > 0 {
		toNothing := ir.Clause{Conds: []ir.Cond{{Arg: 1, Op: ir.OpEq, Mask: ^uint64(0), Value: 0}}, Action: ir.Allow, Reason: "takes no room"}
		u.Filter.Traps = append(u.Filter.Traps, seccomp.Trap{
			Names: []string{"truncate", "ftruncate"}, Reason: "limits.disk: no file is longer than there is room for", Origin: u.ref(disk.Origin),
			Clauses: []ir.Clause{toNothing},
		})
	}
}

// branchMechanisms: after the start a branch traps no system call, but for lengths under limits.disk.
func branchMechanisms(u *Unit, add adder) {
	b := &u.Program.Branch
	if b.Kind == ir.BranchNone {
		return
	}
	if b.Kind == ir.BranchFS {
		add("filesystem.isolation", "branchfs", "the BranchFS that the working directory is on keeps changes in a branch, which is mounted in the working directory's place; of the rest of that file system the command sees nothing")
		add("filesystem.isolation", "seccomp", "the requests that settle branches are refused by their numbers, on any file")
	} else {
		add("filesystem.workdir", "overlayfs", "the kernel keeps changes in a layer of their own over the working directory, at no cost per call; files are copied when they are first changed, and the real ones are not touched before the end")
	}
	add("filesystem.workdir", "PID namespace", "the kernel ends every process before the branch is settled, so nobody changes it meanwhile")
	const settled = "settled by the executor when all processes are gone; "
	add("filesystem.on_exit", "supervisor", settled+"after status 0: "+actionReason(b.OnExit))
	add("filesystem.on_error", "supervisor", settled+"after any other status, a signal, a limit or a timeout: "+actionReason(b.OnError))
	if b.Disk > 0 {
		add("limits.disk", "size-limited file system", "changes are kept in memory (tmpfs) until the end, in a file system of that size, so every way to grow ends in ENOSPC")
		add("limits.disk", "seccomp notification", "truncate and ftruncate to a greater length than there is room for are refused with ENOSPC, although a hole takes none")
	}
}

// actionReason says what an action does.
func actionReason(a ir.BranchAction) string {
	switch a {
	case ir.BranchCommit:
		return "the changes are applied to the working directory"
	case ir.BranchKeep:
		return "the changes are left for `sandlock-exec branch`"
	}
	return "the changes are dropped"
}
