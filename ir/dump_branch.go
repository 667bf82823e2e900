package ir

import "fmt"

var branchKindNames = map[BranchKind]string{BranchOverlay: "overlayfs", BranchFS: "branchfs"}

var branchActionNames = map[BranchAction]string{BranchCommit: "commit", BranchAbort: "abort", BranchKeep: "keep"}

// branchTotals is the line about a branch at the top of a dump.
func (b *Branch) branchTotals() string {
	text := fmt.Sprintf("%s on %s: %s after status 0, else %s", branchKindNames[b.Kind], b.Workdir, branchActionNames[b.OnExit], branchActionNames[b.OnError])
	if b.Disk > 0 {
		text += ", at most " + sizeText(b.Disk)
	}
	return text
}

// branch says what becomes of changes in the working directory.
func (d *dumper) branch() {
	b := &d.p.Branch
	if b.Kind == BranchNone {
		return
	}
	d.section("branch  changes in the working directory are kept apart until the end")
	rows := []row{{cells: []string{"workdir", b.Workdir}, origin: b.Origin}}
	add := func(name, value string) { rows = append(rows, row{cells: []string{name, value}}) }
	switch b.Kind {
	case BranchOverlay:
		add("kind", "overlayfs, mounted on it")
	case BranchFS:
		add("kind", "branchfs, which it is on")
	}
	switch {
	case b.Kind == BranchFS:
		add("storage", "the BranchFS's own")
	case b.Storage != "":
		add("storage", b.Storage)
	default:
		add("storage", "the user's default")
	}
	add("after status 0", b.OnExit.fate())
	add("after any other end", b.OnError.fate())
	if b.Kind == BranchFS {
		add("disk", "as the BranchFS bounds it")
	} else if b.Disk > 0 {
		rows = append(rows, row{cells: []string{"disk", "at most " + sizeText(b.Disk) + ", kept in memory"}, origin: b.DiskOrigin})
	} else {
		add("disk", limitText(b.Disk, "%d"))
	}
	d.rows(rows)
}

// fate says what an action does, in words.
func (a BranchAction) fate() string {
	return branchActionNames[a] + ": " + map[BranchAction]string{
		BranchCommit: "they are applied to the working directory",
		BranchAbort:  "they are dropped",
		BranchKeep:   "they are left in the storage",
	}[a]
}

// branchView is the branch in JSON.
type branchView struct {
	Workdir string `json:"workdir"`
	Kind    string `json:"kind"` // "overlayfs" or "branchfs"
	Storage string `json:"storage,omitempty"`
	OnExit  string `json:"on_exit"` // "commit", "abort" or "keep"
	OnError string `json:"on_error"`
	Disk    uint64 `json:"disk_bytes,omitempty"`
	Origin  string `json:"origin,omitempty"`
}

func (p *Program) branchView() *branchView {
	b := &p.Branch
	if b.Kind == BranchNone {
		return nil
	}
	return &branchView{
		b.Workdir, branchKindNames[b.Kind], b.Storage, branchActionNames[b.OnExit], branchActionNames[b.OnError], b.Disk, p.at(b.Origin),
	}
}
