package dirs

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		var list []item
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
			list = append(list, item{inode: uint64(i), kind: 8, name: fmt.Sprintf("entry-%08d", i)})
		}
		raw := encode(list...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				newSnapshot(directory{}, raw).stamp(1)
			}
		})
	}
}
