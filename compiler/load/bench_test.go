package load

import "testing"

func BenchmarkLoad(b *testing.B) {
	for _, name := range []string{"bench.cue"} {
		for b.Loop() {
			if _, d := Load(Options{Args: []string{"testdata/" + name}}); d != nil {
				b.Fatal(d)
			}
		}
	}
}
