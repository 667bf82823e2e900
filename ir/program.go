// Package ir is the sealed intermediate representation: what a policy means, with everything decided.
//
// In: the compiler's lowering passes build a [Program]. Out: [Encode] writes it as deterministic CBOR, ir/seal
// puts header and digest around it, and the executor maps its fields one to one to kernel calls. The package holds
// no policy logic and knows neither CUE nor the kernel's interfaces; it builds on every platform, so that policies
// can be compiled and reviewed anywhere.
//
// Wire tags are written constants, never derived from names. A tag is never reused for another meaning; any change
// of meaning raises [FormatVersion], and a reader refuses versions and tags it does not know.
//
// Read next: sections.go (the types), codec.go (canonical bytes), validate.go (invariants), dump.go (the text that
// reviewers read), ir/query (what a program decides).
package ir

import "github.com/sandlock-go/sandlock/ir/abi"

// FormatVersion is the version of the payload that this package reads and writes.
const FormatVersion = 1

// Program is one compiled policy for all of its architectures.
type Program struct {
	Name        string        `cbor:"1,keyasint"`
	Description string        `cbor:"2,keyasint,omitempty"`
	Target      Target        `cbor:"3,keyasint"`
	Requires    []Requirement `cbor:"4,keyasint,omitempty"`
	Process     Process       `cbor:"5,keyasint"`
	Landlock    Landlock      `cbor:"6,keyasint"`
	Seccomp     Seccomp       `cbor:"7,keyasint"`
	Limits      Limits        `cbor:"8,keyasint"`
	Params      []Param       `cbor:"9,keyasint,omitempty"`
	Mechanisms  []Mechanism   `cbor:"10,keyasint,omitempty"`
	// Origins says where in the policy each item was written. Like debug information it can be stripped
	// ([Program.Strip]); nothing that is enforced depends on it.
	Origins []Origin `cbor:"11,keyasint,omitempty"`
	// Tests are the policy's own assertions; they are not enforced but evaluated by `sandlock-compile test`.
	Tests       []Test      `cbor:"12,keyasint,omitempty"`
	Determinism Determinism `cbor:"13,keyasint"`
	// Rules are looked at in order before a held call; see rules.go.
	Rules  []DynamicRule `cbor:"14,keyasint,omitempty"`
	Net    Net           `cbor:"15,keyasint"`
	HTTP   HTTP          `cbor:"16,keyasint"`
	View   View          `cbor:"17,keyasint"`
	Branch Branch        `cbor:"18,keyasint"`
}

// OriginRef names an entry of [Program.Origins]: 0 means none (a built-in rule), n means Origins[n-1].
type OriginRef uint32

// OriginKind tells who wrote an item.
type OriginKind uint8

// Kinds of origin.
const (
	OriginUser    OriginKind = 1 // the policy's own files
	OriginPreset  OriginKind = 2 // a package of the embedded module
	OriginDefault OriginKind = 3 // the schema's default layer
	OriginDerived OriginKind = 4 // implied by what the user wrote, at that place
)

// Origin is a place in the policy's source. File is relative to the module root or the policy's directory.
type Origin struct {
	_    struct{} `cbor:",toarray"`
	File string
	Line uint32
	Col  uint32
	Path string // policy path, such as "filesystem.read[2]"
	Kind OriginKind
}

// Target is what the program was compiled for.
type Target struct {
	Arches      []abi.Arch `cbor:"1,keyasint"`
	LandlockABI uint8      `cbor:"2,keyasint"` // floor; a lower host refuses unless every missing right is degradable
	Backend     string     `cbor:"3,keyasint"` // "auto", "namespace" or "notify"
}

// Requirement is one thing that the host must offer, and the policy fields that ask for it.
type Requirement struct {
	_       struct{} `cbor:",toarray"`
	Feature Feature
	Min     uint32   // for FeatureLandlock the ABI, else 0
	Fields  []string // sorted policy paths, such as "filesystem", "limits.processes"
}

// Feature is a kernel facility that a program can require.
type Feature uint8

// Features. The executor proves each by trying it, never by a version number.
const (
	FeatureLandlock      Feature = 1 // Landlock, at an ABI
	FeatureSeccompFilter Feature = 2 // seccomp filter mode
	FeatureSeccompNotify Feature = 3 // seccomp user notification (a listener)
	FeaturePtrace        Feature = 4 // tracing descendants (Yama)
	FeatureCgroupMemory  Feature = 5 // a delegated cgroup v2 directory with the memory controller
	FeatureCgroupCPU     Feature = 6 // the same with the cpu controller
	FeatureNamespaces    Feature = 7 // mount and other namespaces of its own, by a user namespace or as root
	FeatureUserNamespace Feature = 8 // a user namespace with ids mapped
	FeatureOverlay       Feature = 9 // overlayfs, mounted in namespaces of its own
)

var featureNames = map[Feature]string{
	FeatureLandlock:      "landlock",
	FeatureSeccompFilter: "seccomp-filter",
	FeatureSeccompNotify: "seccomp-notify",
	FeaturePtrace:        "ptrace",
	FeatureCgroupMemory:  "cgroup-memory",
	FeatureCgroupCPU:     "cgroup-cpu",
	FeatureNamespaces:    "namespaces",
	FeatureUserNamespace: "user-namespace",
	FeatureOverlay:       "overlayfs",
}

// String returns the feature's name as goldens and `sandlock-exec check` print it.
func (f Feature) String() string {
	if s, ok := featureNames[f]; ok {
		return s
	}
	return "unknown-feature"
}

// Mechanism records which kernel mechanism enforces a feature of the policy, and why that one.
type Mechanism struct {
	_       struct{} `cbor:",toarray"`
	Feature string   // policy path, such as "filesystem.read"
	Choice  string   // such as "landlock", "seccomp", "notify", "rlimit", "refused"
	Reason  string
}

// Strip removes the origins: smaller artifact, denials then name the policy path no longer.
func (p *Program) Strip() { p.Origins = nil }

// Origin resolves a reference; ok is false for built-in items and in stripped programs.
func (p *Program) Origin(r OriginRef) (o Origin, ok bool) {
	if r == 0 || int(r) > len(p.Origins) {
		return Origin{}, false
	}
	return p.Origins[r-1], true
}

// Filter returns the filter for an architecture.
func (p *Program) Filter(a abi.Arch) (*ArchFilter, bool) {
	for i := range p.Seccomp.Filters {
		if p.Seccomp.Filters[i].Arch == a {
			return &p.Seccomp.Filters[i], true
		}
	}
	return nil, false
}
