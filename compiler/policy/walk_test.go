package policy

import (
	"testing"

	"github.com/sandlock-go/sandlock/ir"
)

func TestDump(t *testing.T) {
	p := &Policy{}
	p.Name = Val[string]{V: "demo", Set: true, Origin: Origin{Place: Place{"p.cue", 1, 7}, Path: "name", Kind: ir.OriginUser}}
	p.Target.Landlock = Val[int]{V: 6, Origin: Origin{Place: Place{"defaults.cue", 3, 4}, Path: "target.landlock", Kind: ir.OriginDefault}}
	p.Filesystem.Read = List[PathRule]{Set: true, Origin: Origin{Path: "filesystem.read", Kind: ir.OriginUser}}
	rule := PathRule{Path: Val[string]{V: "/usr", Set: true, Origin: Origin{Place: Place{"p.cue", 3, 9}, Path: "filesystem.read[0].path",
		Kind: ir.OriginPreset, Also: []Place{{"q.cue", 1, 1}}}}}
	p.Filesystem.Read.Items = []Val[PathRule]{{V: rule, Set: true}}
	got := Dump(p)
	want := `name = "demo"  p.cue:1:7
target.landlock = 6 (default)
filesystem.read[0].path = "/usr"  p.cue:3:9 (preset), q.cue:1:1
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
