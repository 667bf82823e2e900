package check

import (
	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
)

// checkTarget warns of protections of the usual floor that a lower target gives up without a word.
func checkTarget(c *checker) {
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
