package actors

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestBufferedRandomHandsOutOnce: every piece is of what was drawn, and none of it comes twice.
func TestBufferedRandomHandsOutOnce(t *testing.T) {
	source := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	random := buffered(func(b []byte) {
		for i := range b {
			b[i] = byte(source.Uint32())
		}
		stream = append(stream, b...)
	})
	from := 0
	for i := range 2000 {
		piece := make([]byte, 8+source.IntN(40))
		if i%100 == 99 {
			piece = make([]byte, 513) // more than the buffer
		}
		random(piece)
		if len(piece) == 513 {
			// It comes from a draw of its own; what was left of the buffer comes after it.
			if !bytes.HasSuffix(stream, piece) {
				t.Fatalf("piece %d was not drawn", i)
			}
			stream = stream[:len(stream)-len(piece)]
			continue
		}
		at := bytes.Index(stream[from:], piece)
		if at < 0 {
			t.Fatalf("piece %d was handed out before, or never drawn", i)
		}
		from += at + len(piece)
	}
}
