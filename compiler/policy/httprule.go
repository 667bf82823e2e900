package policy

// HTTPRule is one rule "METHOD host/path".
type HTTPRule struct {
	Method string // upper case; "*" any
	Host   string // lower case; "*" any
	Path   string // normal form, begins with "/"; "/*" any
	Prefix bool   // Path ended in "*": it matches as a prefix (the "*" is not part of Path)
}
