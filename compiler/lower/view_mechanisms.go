package lower

import "github.com/sandlock-go/sandlock/ir"

// viewRequirements are the fields that need namespaces.
func viewRequirements(u *Unit) (reqs []ir.Requirement) {
	var fields []string
	for _, use := range ViewUses(u.Policy) {
		if use.mounts {
			fields = append(fields, use.Field)
		}
	}
	if u.Program.View.Shows() {
		reqs = append(reqs, ir.Requirement{Feature: ir.FeatureNamespaces, Fields: sortedSet(fields)})
	}
	if u.Program.View.MapIDs {
		reqs = append(reqs, ir.Requirement{Feature: ir.FeatureUserNamespace, Fields: []string{"program.gid", "program.uid"}})
	}
	return reqs
}

// viewMechanisms: after the start these features trap no system call.
func viewMechanisms(u *Unit, add adder) {
	v := &u.Program.View
	if v.MapIDs {
		add("program.uid", "user namespace", "one user and one group are mapped; supplementary groups are dropped where the executor may")
	}
	if !v.Mount {
		return
	}
	add("name", "UTS namespace", "the name is the host's name inside, also in /etc/hostname")
	if strict := u.Policy.Program.StrictLifetime.V; strict == "true" || strict == "prefer" {
		reason := "when its init ends the kernel ends every process; init ends with the executor, however that ends"
		if v.Optional {
			reason += "; a host that refuses namespaces starts without, and the executor says so"
		}
		add("program.strict_lifetime", "PID namespace", reason)
	}
	const placeholders = "; placeholders for what is missing are removed by the init of a PID namespace, even when the executor is killed"
	if len(v.Deny) > 0 {
		add("filesystem.deny", "mount", "something that nobody can open is mounted over each path, so no spelling, link or race leads to it"+placeholders)
	}
	if len(v.Protect) > 0 {
		add("filesystem.protect", "mount", "what matches at the start is mounted over itself read-only; what is missing and named without wildcards cannot be created; directories that are made later are not looked into"+placeholders)
	}
	if v.Root != "" {
		add("filesystem.chroot", "pivot_root", "the command has another root and no way to the old one, which is unmounted")
	}
	if len(v.Mounts) > 0 {
		add("filesystem.mount", "bind mount", "files are shown by the kernel, with everything mounted beneath them")
	}
	if v.Tmp {
		add("filesystem.tmp", "tmpfs", "an empty file system in memory, gone with the sandbox")
	}
	switch v.Proc {
	case ir.ProcPrivate:
		add("filesystem.proc", "procfs of an own PID namespace", "the kernel shows processes of the namespace alone; a host that does not let it be mounted stops the start")
	case ir.ProcAuto:
		add("filesystem.proc", "procfs of an own PID namespace", "the kernel shows processes of the namespace alone; a host that does not let it be mounted shows its own, and the executor says so")
	}
	if len(v.Masks) > 0 {
		add("filesystem", "mount", "files of the kernel that tell of the whole machine are mounted over")
	}
	if len(v.ReadOnly) > 0 {
		add("filesystem.write", "mount", "settings of the kernel are mounted over themselves read-only")
	}
	if v.Net {
		add("network", "network namespace", "the policy allows no network, so there is nothing but a loopback device of its own")
	}
}
