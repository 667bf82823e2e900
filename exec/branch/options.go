package branch

// OverlayOptions are the mount options, besides the directories, that a branch must be mounted with:
//
//   - redirect_dir=nofollow, metacopy=off: without them an entry of the upper is the whole of what it stands for. Modules may
//     have other defaults for root. (In a user namespace userxattr implies both.) A directory of the lower cannot be renamed
//     then: EXDEV, on which mv copies. [Branch.Commit] refuses an upper that was written otherwise.
//   - index=off, nfs_export=off: with an index, a write to one name of a lower file shows under its other names, of which the
//     upper then knows nothing. Without, as with all copies, that write separates the names.
//   - volatile: nothing is synced while the command runs. durable.go tells what is made of that.
//   - userxattr: overlayfs keeps its notes in user.overlay.* attributes, which takes no privilege, for the mount and for a commit
//     (Linux 5.11).
//
// xino has no effect on the upper; it may be as the caller likes.
func OverlayOptions() []string {
	return []string{"redirect_dir=nofollow", "metacopy=off", "index=off", "nfs_export=off", "volatile", "userxattr"}
}

// Layers are the directories of the mount: lower, upper and work. They are for fsconfig(2) (lowerdir+ since Linux 6.7), which
// takes any name; in a string of options they must be escaped. With [Options.Disk], upper and work are names in the directory
// that [Branch.Place] was given.
func (b *Branch) Layers() (lower, upper, work string) {
	if b.notes.Options.Disk > 0 {
		return b.notes.Workdir, "upper", "work"
	}
	return b.notes.Workdir, b.Dir() + "/upper", b.Dir() + "/work"
}
