package history

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// FuzzDecoders: what lies in a record may be anything; what is taken from it is what would be
// written.
func FuzzDecoders(f *testing.F) {
	p := Point{At: t0, Used: 5, Models: 3, Peak: 9, Level: 2, Seen: time.Second, Grown: Counters{Grants: 3}}
	var b [pointPayload]byte
	p.encode(&b)
	f.Add(b[:])
	var h Histogram
	for d := range time.Duration(50) {
		h.Observe(d * time.Millisecond)
	}
	f.Add(h.encode(3, 1000))
	tr := trace{reel: reel{size: traceBytes, bound: 4, heads: make([]byte, 2*traceBytes), slots: make([]byte, 4*traceBytes)}}
	tr.add([]Use{{At: 5, Model: 1, Bytes: 7, Cost: 9, Kind: Miss, Took: 11}, {At: 6, Model: 1, Bytes: 7, Cost: 9}, {At: 6, Model: 2, Kind: Gone}})
	f.Add(tr.block)
	f.Fuzz(func(t *testing.T, data []byte) {
		var p, q Point
		if p.decode(data) {
			var b [pointPayload]byte
			p.encode(&b)
			if !q.decode(b[:]) || p != q {
				t.Fatalf("a point is %+v, and then %+v", p, q)
			}
		}
		var h, back Histogram
		if span, ok := h.decode(data); ok {
			again, ok := back.decode(h.encode(span, sketchBytes-recordHeader))
			if !ok || again != span || back.Count != h.Count || back.Max != h.Max || h.Percentile(50) < 0 {
				t.Fatalf("a histogram of %d is %d, and then %d", span, h.Count, back.Count)
			}
		}
		var uses []Use
		_, _, _ = eachUse(data, func(u *Use) { uses = append(uses, *u) })
		for i, u := range uses {
			if u.At < 0 || u.Bytes < 0 || u.Cost < 0 || u.Took < 0 || u.Kind >= useKinds || i > 0 && u.At < uses[i-1].At {
				t.Fatalf("use %d is %+v", i, u)
			}
		}
	})
}

// FuzzOpen: whatever happens to the bytes of an image, a history tells nothing that was not
// written, and goes on.
func FuzzOpen(f *testing.F) {
	patch := func(offs ...int) (b []byte) {
		for _, o := range offs {
			b = append(binary.LittleEndian.AppendUint32(b, uint32(o)), 0xff)
		}
		return b
	}
	f.Add([]byte{}, []byte{})
	f.Add(patch(offMagic), []byte("x"))
	f.Add(patch(headerBytes), []byte{1})                                                  // the name
	f.Add(patch(headerBytes+nameBytes+20, headerBytes+nameBytes+pointBytes+20), []byte{}) // both heads
	f.Add(patch(headerBytes+20_000), []byte{2})
	image, cfg := oneDevice()
	h := must[*History](f)(Format(image, cfg, 1))
	written := map[Point]bool{} // a point that is lost may leave what it was before it grew
	for i := range 100 {
		something(h, "a", i)
		written[h.of("a").fine.newest], written[h.of("a").coarse.newest] = true, true
	}
	uses := h.Uses("a")
	mem := make([]byte, len(image))
	f.Fuzz(func(t *testing.T, patches, raw []byte) {
		copy(mem, image)
		for ; len(patches) >= 5; patches = patches[5:] {
			mem[int(binary.LittleEndian.Uint32(patches))%len(mem)] ^= patches[4]
		}
		h, err := Open(mem, cfg)
		if err != nil {
			return
		}
		s := h.of("a")
		for _, r := range []*ring{&s.fine, &s.coarse} {
			r.each(func(p *Point) {
				if !written[*p] {
					t.Fatalf("a point that nobody wrote: %+v", *p)
				}
			})
		}
		for _, u := range h.Uses("a") {
			if !slices.Contains(uses, u) {
				t.Fatalf("a use that nobody saw: %+v", u)
			}
		}
		// A record that is sound in form, whatever it says.
		for i, r := range s.reels() {
			b := raw[:min(len(raw), r.room())]
			if r.push(b); i%2 == 0 {
				r.replace(b)
			}
		}
		s.open(nil)
		something(h, "a", 200)
		_ = told(h)
		_ = h.Gaps("a", 0)
		_ = h.Resolution("a", 5)
	})
}
