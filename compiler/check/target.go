package check

import (
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
)

func checkTarget(c *checker) {
	repeated(c.Target.Arch, func(s string) string { return s }, func(again, first policy.Val[string]) {
		c.add(diag.At(again.Origin, "duplicate", "%q is listed twice", again.V).AsWarning().WithNote(first.Origin.Place, "first at"))
	})
	if c.Protections.FSRefer.V == "off" {
		// Where a ruleset does not handle this right, the kernel denies it everywhere: "off" would tighten, not waive.
		d := diag.At(c.Protections.FSRefer.Origin, "fs-refer-off", "cannot be off: Landlock then refuses every rename and link across directories")
		c.add(d.WithHint(`grant it with filesystem.rules access "refer" where it is needed`))
	}
	c.checkFloor()
}

// checkFloor warns of protections of the usual floor that a lower target gives up without a word.
func (c *checker) checkFloor() {
	const usual = 6
	floor := c.Target.Landlock.V
	var lost []string
	for _, p := range lower.Protections(&c.Protections) {
		if p.Since > floor && p.Since <= usual && p.Mode.V != "off" && p.Name != "fs_refer" {
			lost = append(lost, p.Name)
		}
	}
	if len(lost) > 0 {
		d := diag.At(c.Target.Landlock.Origin, "target-landlock", "Landlock ABI %d does not know %s: not restricted on any host", floor, join(lost))
		c.add(d.AsWarning().WithHint(`to restrict where the host can, keep target.landlock and write "degrade" for these protections; "off" silences this`))
	}
}
