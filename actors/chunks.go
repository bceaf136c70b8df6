package actors

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/schemas"
)

// chunkBytes is how much of a long copy is one job of a worker: a few milliseconds, between
// which others get their turn and the copy can be cancelled.
const chunkBytes = 16 << 20

// stageBytes is the buffer by way of which bytes go from one driver to another.
const stageBytes = 4 << 20

// bridgeBytes is how much one driver copies of another's at a time, as a model's segments have:
// some tens of milliseconds at the speed of a link, after which progress is known. A cancel is
// heard meanwhile. loadBytes is the same of files, which may come from a slow disk.
const (
	bridgeBytes = 1 << 30
	loadBytes   = 256 << 20
)

// progressEvery is the least time between two reports of one copy: ten a second.
const progressEvery = 100 * time.Millisecond

// maxCopies bounds the copies under way on a node.
const maxCopies = 256

// piece is a range of one segment.
type piece struct {
	segment device.Segment
	off, n  int64
}

// pieces are the ranges of a grant's segments that hold n of its bytes from offset on.
func pieces(blocks []heap.Block, segments []device.Segment, offset, n int64) (out []piece) {
	for i, b := range blocks {
		skip := min(offset, b.Bytes)
		offset -= skip
		if part := min(n, b.Bytes-skip); part > 0 {
			out = append(out, piece{segments[i], b.Offset + skip, part})
			n -= part
		}
	}
	return out
}

// chunk is the work of one turn. It may end early when ctx does.
type chunk struct {
	bytes int64
	do    func(ctx context.Context) error
	// parts are the work instead of do, so many side by side.
	parts      []chunk
	sideBySide int
	// whole is the work instead of both where a driver does all of it by itself; it tells did
	// of bytes that are done, from one goroutine.
	whole func(ctx context.Context, did func(n int64)) error
}

// alone tells whether a driver's own threads do the work, and a worker would only wait for them.
func (c chunk) alone() bool { return c.parts != nil || c.whole != nil }

// clearChunks fill pieces with a value.
func clearChunks(d device.Driver, ps []piece, value byte) (out []chunk) {
	if b, ok := d.(device.Batcher); ok {
		return atOnce(ps, func(ctx context.Context, did func(n int64)) error { return b.ClearAll(ctx, ranges(ps), value, did) })
	}
	for _, p := range ps {
		for at := int64(0); at < p.n; at += chunkBytes {
			n := min(chunkBytes, p.n-at)
			out = append(out, chunk{bytes: n, do: func(context.Context) error { return d.Clear(p.segment, p.off+at, n, value) }})
		}
	}
	return out
}

// copyChunks copy as many bytes from one list of pieces to another, inside one driver.
func copyChunks(d device.Driver, to, from []piece) []chunk {
	if b, ok := d.(device.Batcher); ok {
		to, from := pairs(to, from, math.MaxInt64)
		return atOnce(to, func(ctx context.Context, did func(n int64)) error {
			return b.CopyAll(ctx, ranges(to), ranges(from), did)
		})
	}
	return zip(to, from, chunkBytes, func(_ context.Context, t, f piece) error { return d.Copy(t.segment, t.off, f.segment, f.off, t.n) })
}

// atOnce is the chunk of a driver that does all of it by itself.
func atOnce(ps []piece, do func(ctx context.Context, did func(n int64)) error) []chunk {
	c := chunk{whole: do}
	for _, p := range ps {
		c.bytes += p.n
	}
	return []chunk{c}
}

// ranges are pieces as drivers take them.
func ranges(ps []piece) []device.Range {
	out := make([]device.Range, len(ps))
	for i, p := range ps {
		out[i] = device.Range{Segment: p.segment, Off: p.off, Bytes: p.n}
	}
	return out
}

// bridgeWidth is how many copies from driver to driver are under way at once: each keeps a link
// busy by itself, and begins and ends.
const bridgeWidth = 2

// together does the parts of a chunk; the first that fails, or the end of ctx, keeps the rest
// from beginning. did is called with the bytes of each that is done, never twice at once.
func together(ctx context.Context, c chunk, did func(n int64)) error {
	var mu sync.Mutex
	var next int
	var failed error
	// ended notes the outcome of a part, nil at first, and gives the next.
	ended := func(last *chunk, err error) *chunk {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case failed != nil:
		case err != nil:
			failed = err
		default:
			if last != nil {
				did(last.bytes)
			}
			failed = ctx.Err()
		}
		if failed != nil || next == len(c.parts) {
			return nil
		}
		next++
		return &c.parts[next-1]
	}
	work := func() {
		for part := ended(nil, nil); part != nil; {
			part = ended(part, part.do(ctx))
		}
	}
	var group sync.WaitGroup
	for range min(c.sideBySide, len(c.parts)) - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
	return failed
}

// ferryChunks copy between two drivers: by the one that copies from or to the other's segments
// by itself, else by way of one buffer, one chunk after the other.
func ferryChunks(target device.Driver, to []piece, source device.Driver, from []piece) []chunk {
	var mu sync.Mutex // parts of a chunk may come to it at once
	var buf []byte
	byBuffer := func(_ context.Context, t, f piece) error {
		mu.Lock()
		defer mu.Unlock()
		if buf == nil {
			buf = make([]byte, stageBytes)
		}
		for at := int64(0); at < t.n; at += stageBytes {
			b := buf[:min(stageBytes, t.n-at)]
			if err := source.Read(f.segment, f.off+at, b); err != nil {
				return err
			}
			if err := target.Write(t.segment, t.off+at, b); err != nil {
				return err
			}
		}
		return nil
	}
	move := bridge(target, to, source, from)
	if move == nil {
		return zip(to, from, stageBytes, byBuffer)
	}
	parts := zip(to, from, bridgeBytes, func(ctx context.Context, t, f piece) error {
		err := move(ctx, t.segment, t.off, f.segment, f.off, t.n)
		if errors.Is(err, device.ErrUnsupported) {
			return byBuffer(ctx, t, f)
		}
		return err
	})
	if len(parts) == 0 {
		return nil
	}
	all := chunk{parts: parts, sideBySide: bridgeWidth}
	for _, c := range parts {
		all.bytes += c.bytes
	}
	return []chunk{all}
}

// bridge finds the driver that copies by itself, nil if neither does.
func bridge(target device.Driver, to []piece, source device.Driver, from []piece) func(ctx context.Context, dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	spans := func(b device.Bridge, ps []piece) bool {
		return !slices.ContainsFunc(ps, func(p piece) bool { return !b.Bridges(p.segment) })
	}
	if b, ok := target.(device.Bridge); ok && spans(b, from) {
		return b.Pull
	}
	if b, ok := source.(device.Bridge); ok && spans(b, to) {
		return b.Push
	}
	return nil
}

// pairs cuts two lists of pieces of the same sum so that they agree piece by piece, none over
// most.
func pairs(to, from []piece, most int64) (t, f []piece) {
	to, from = slices.Clone(to), slices.Clone(from)
	for len(to) > 0 && len(from) > 0 {
		n := min(to[0].n, from[0].n, most)
		t, f = append(t, piece{to[0].segment, to[0].off, n}), append(f, piece{from[0].segment, from[0].off, n})
		to, from = after(to, n), after(from, n)
	}
	return t, f
}

// zip makes a chunk of each pair.
func zip(to, from []piece, most int64, do func(ctx context.Context, t, f piece) error) (out []chunk) {
	to, from = pairs(to, from, most)
	for i, t := range to {
		out = append(out, chunk{bytes: t.n, do: func(ctx context.Context) error { return do(ctx, t, from[i]) }})
	}
	return out
}

// after takes n bytes off the first piece of a list.
func after(ps []piece, n int64) []piece {
	if ps[0].n == n {
		return ps[1:]
	}
	ps[0].off, ps[0].n = ps[0].off+n, ps[0].n-n
	return ps
}

// task is a copy or a clear under way, in chunks on the copy workers of a device.
type task struct {
	device *deviceActor
	chunks []chunk
	// grants are those whose release stops it, with an error of this code.
	grants []uuid.UUID
	lost   schemas.Code
	// progress, if not nil, is called on a worker, rarely enough to tell everybody of it.
	progress func(done int64)
	// end is called once on the transfer actor, when no worker is at it any more.
	end func(done int64, took time.Duration, err error)

	ctx    context.Context
	cancel context.CancelCauseFunc
	next   int
	done   int64
	total  int64
	begun  clock.Instant
	told   clock.Instant
}

func newTask(d *deviceActor, chunks []chunk, grants ...uuid.UUID) *task {
	t := &task{device: d, chunks: chunks, grants: grants, lost: schemas.CodeTransferFailed}
	for _, c := range chunks {
		t.total += c.bytes
	}
	t.ctx, t.cancel = context.WithCancelCause(d.house.transfer.ctx)
	return t
}

// ferry is the task of copying between two devices.
func ferry(target *deviceActor, to []piece, source *deviceActor, from []piece, grants ...uuid.UUID) *task {
	return newTask(target, ferryChunks(target.driver, to, source.driver, from), grants...)
}

// canceller ends the task at its next chunk.
func (t *task) canceller(err *schemas.Error, seen func()) {
	t.cancel(err)
	t.device.house.transfer.tell(seam.SystemLane, seen)
}

// begin starts a task.
func (t *transferActor) begin(k *task) {
	t.tell(seam.SystemLane, func() {
		k.begun = t.house.cfg.Clock.Now()
		k.told = k.begun
		if len(t.tasks) >= maxCopies {
			k.cancel(nil)
			k.end(0, 0, schemas.Errorf(schemas.CodeBusy, "%d copies are under way, the most at a time", maxCopies).With("retry_after_ms", 1000))
			return
		}
		t.tasks[k] = true
		if len(k.chunks) == 1 && k.chunks[0].alone() {
			t.crew.join(k.step)
			return
		}
		k.device.work.copies.put(k.step)
	})
}

// step does one chunk on a worker and puts the rest behind what others want of the workers.
func (t *task) step() {
	err := context.Cause(t.ctx)
	if err == nil && t.next < len(t.chunks) {
		c := t.chunks[t.next]
		t.next++
		err = t.do(c)
	}
	h := t.device.house
	if err != nil || t.next == len(t.chunks) {
		h.suspect(err)
		now := h.cfg.Clock.Now()
		h.transfer.tell(seam.SystemLane, func() {
			delete(h.transfer.tasks, t)
			t.cancel(nil)
			t.end(t.done, now.Sub(t.begun), err)
		})
		return
	}
	t.device.work.copies.put(t.step)
}

// advance notes that so many bytes more are there.
func (t *task) advance(n int64) {
	t.done += n
	now := t.device.house.cfg.Clock.Now()
	if t.progress != nil && t.done < t.total && now.Sub(t.told) >= progressEvery {
		t.told = now
		t.progress(t.done)
	}
}

func (t *task) do(c chunk) error {
	if n := t.device.house.blocking(c); n > 0 {
		t.device.house.cfg.Blocking(n)
		defer t.device.house.cfg.Blocking(-n)
	}
	var err error
	switch {
	case c.whole != nil:
		err = c.whole(t.ctx, t.advance)
	case c.parts != nil:
		err = together(t.ctx, c, t.advance)
	default:
		if err = c.do(t.ctx); err == nil {
			t.advance(c.bytes)
		}
	}
	if err != nil && t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	return err
}

// blocking is how many goroutines sit in long system calls while a chunk is done.
func (h *House) blocking(c chunk) int {
	switch {
	case c.parts != nil && c.bytes >= longBytes:
		return h.cfg.LoadWorkers // as a load's: the threads of a driver
	case c.whole != nil && c.bytes < longBatch:
		h.cfg.Blocking(0)
	case c.bytes >= longBytes:
		return 1
	}
	return 0
}

// longBatch is how much takes a driver that does all of it by itself a millisecond or more.
const longBatch = 1 << 30

// interrupt stops what is under way on a grant whose release has begun.
func (t *transferActor) interrupt(id uuid.UUID) {
	t.tell(seam.SystemLane, func() {
		why := func(code schemas.Code) *schemas.Error {
			return schemas.Errorf(code, "allocation %s is being released", id).With("allocation_id", id.String())
		}
		for k := range t.tasks {
			if slices.Contains(k.grants, id) {
				k.cancel(why(k.lost))
			}
		}
		for k := range t.checks {
			if k.grant == id {
				k.cancel(why(schemas.CodeStaleHandle))
			}
		}
		for m := range t.moves {
			if m.source == id {
				t.stopMove(m, why(schemas.CodeTransferFailed))
			}
		}
	})
}

// copyError says on the wire why a copy ended; other is the code of what has none.
func copyError(err error, other schemas.Code) *schemas.Error {
	var known *schemas.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.Canceled):
		return schemas.Errorf(schemas.CodeDraining, "the node is stopping")
	}
	return driverError(err, other)
}

// rate is bytes a second; 0 where no time has passed.
func rate(bytes int64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(bytes) / took.Seconds()
}
