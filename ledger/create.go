package ledger

import "github.com/isobar-project/isobar/heap"

// create promises the bytes and sends workers to make the segments.
func (d *Device) create(r *Request, sizes []int64) {
	r.segs = r.segs[:0]
	ranges := make([]Range, len(sizes))
	before := held(r.blocks)
	for i, n := range sizes {
		r.promised += n
		d.books.promised += n
		s := d.newSegment(n, r.Class == ClassWeights)
		r.segs = append(r.segs, s)
		ranges[i] = Range{Segment: s.id, Bytes: n, Length: n}
		if r.overwrites() {
			s.raw, ranges[i] = true, r.unwritten(s, before)
			before += n
		}
	}
	r.jobs++
	d.out.Jobs = append(d.out.Jobs, Job{Kind: JobCreate, Ticket: r.ticket, Ranges: ranges, Weights: r.Class == ClassWeights, Unclear: r.overwrites()})
}

func held(blocks []heap.Block) (bytes int64) {
	for _, b := range blocks {
		bytes += b.Bytes
	}
	return bytes
}
