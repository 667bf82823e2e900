package intercept

import "testing"

// Many answers at a time get by with small buffers.
func TestBuffers(t *testing.T) {
	var b buffers
	var held [][]byte
	for range maxLarge + 10 {
		held = append(held, b.Get())
	}
	if first, last := len(held[0]), len(held[len(held)-1]); first != largeBuffer || last != smallBuffer {
		t.Errorf("the first has %d bytes, the last %d", first, last)
	}
	for _, buffer := range held {
		b.Put(buffer)
	}
	if got := len(b.Get()); got != largeBuffer {
		t.Errorf("after that one has %d bytes", got)
	}
}
