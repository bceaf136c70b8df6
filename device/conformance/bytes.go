//go:build linux

package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/bits"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// longBytes crosses every chunk size of the drivers, with an odd rest.
const longBytes = 18<<20 + 8192

// long is longBytes in whole granules.
func (b *bench) long() int64 {
	g := b.d.Info().GranularityBytes
	return (longBytes + g - 1) / g * g
}

func testInfo(t *testing.T, b *bench) {
	i := b.d.Info()
	if i.ID == "" || i.Kind == "" || i.HandleKind == "" || i.Name == "" {
		t.Errorf("info %+v: ID, kind, handle kind and name must be there", i)
	}
	if i.Type == device.Unknown {
		t.Error("the type must be known")
	}
	if g := i.GranularityBytes; g <= 0 || bits.OnesCount64(uint64(g)) != 1 {
		t.Errorf("granularity %d is not a power of two", g)
	}
	if i.PhysicalBytes <= 0 {
		t.Errorf("physical bytes are %d", i.PhysicalBytes)
	}
}

func testSizes(t *testing.T, b *bench) {
	g := b.d.Info().GranularityBytes
	for _, n := range []int64{-g, 0, 1, g - 1, g + 1} {
		_, err := b.d.Create(context.Background(), n, device.CreateOptions{})
		wantErr(t, "create", err, device.ErrSize)
	}
	if s := b.scratch(t, g); s.Bytes() != g || s.Weights() || s.Sealed() {
		t.Errorf("scratch of %d bytes: %d bytes, weights %v, sealed %v", g, s.Bytes(), s.Weights(), s.Sealed())
	}
}

func testScratchIsReal(t *testing.T, b *bench) {
	s := b.scratch(t, b.long())
	if b.memfd() {
		want := s.Bytes()
		if b.d.Info().Simulated {
			want = 0
		}
		if got := blockBytes(t, s.File()); got != want {
			t.Errorf("the kernel holds %d bytes of a fresh segment of %d, want %d", got, s.Bytes(), want)
		}
	}
	p := b.consumer(t, s, device.ReadWrite)
	b.contains(t, "fresh scratch", p, make([]byte, s.Bytes()))
}

func testSharing(t *testing.T, b *bench) {
	s := b.scratch(t, b.bytes)
	want := pattern(b.bytes, 1)
	b.fill(t, s, 0, want)
	writer, reader := b.consumer(t, s, device.ReadWrite), b.consumer(t, s, device.ReadOnly)
	b.contains(t, "after fill", writer, want)
	b.contains(t, "after fill", reader, want)

	writer.ok("write %d %d %d", 4097, 100_000, 0xEE)
	copy(want[4097:], filled(100_000, 0xEE))
	b.contains(t, "after another process wrote", reader, want)

	// And the driver sees what the other process wrote.
	copied := b.scratch(t, b.bytes)
	must(t, b.d.Copy(copied, 0, s, 0, b.bytes))
	b.contains(t, "copy of what another process wrote", b.consumer(t, copied, device.ReadOnly), want)
}

func testScratchSeals(t *testing.T, b *bench) {
	if !b.memfd() {
		return // a handle has no size that a client could change
	}
	s := b.scratch(t, b.bytes)
	p := b.consumer(t, s, device.ReadWrite)
	p.refused("truncate %d", 0)
	p.refused("truncate %d", b.bytes-1)
	p.refused("truncate %d", 2*b.bytes)
	p.refused("seal %d", unix.F_SEAL_WRITE)
	p.refused("seal %d", unix.F_SEAL_FUTURE_WRITE)
	must(t, b.d.Clear(s, b.bytes-1, 1, 9)) // the tail is still there
}

func testClear(t *testing.T, b *bench) {
	n := b.long()
	s := b.scratch(t, n)
	p := b.consumer(t, s, device.ReadOnly)
	want := make([]byte, n)
	for _, c := range []struct {
		off, n int64
		value  byte
	}{
		{0, n, 0xAB},
		{0, 0, 1},
		{n, 0, 1},
		{5, 1, 0xFF},
		{4095, 2, 0},
		{1<<20 + 3, 700_001, 7},   // unaligned, large
		{2<<20 - 1, 2<<20 + 2, 0}, // around a huge page
		{16<<20 - 5, 10, 3},       // around a chunk
		{n - 1, 1, 0x11},
		{1, n - 2, 0x42},
		{123, n - 456, 0},
	} {
		must(t, b.d.Clear(s, c.off, c.n, c.value))
		copy(want[c.off:], filled(c.n, c.value))
		if got := p.sum(0, n); got != checksum(want) {
			t.Fatalf("after clearing %d bytes at %d to %#x: checksum %s, want %s", c.n, c.off, c.value, got, checksum(want))
		}
	}
}

func testCopy(t *testing.T, b *bench) {
	n := b.long()
	src, dst := b.scratch(t, n), b.scratch(t, n)
	from, to := pattern(n, 2), make([]byte, n)
	b.fill(t, src, 0, from)
	p := b.consumer(t, dst, device.ReadOnly)
	for _, c := range []struct{ to, from, n int64 }{
		{0, 0, n},
		{1, 2, 3},
		{4096, 8192, 4096},
		{7, 1<<20 + 5, 3<<20 + 1},
		{n - 17<<20, 1, 17 << 20},
		{n, 0, 0},
	} {
		must(t, b.d.Copy(dst, c.to, src, c.from, c.n))
		copy(to[c.to:c.to+c.n], from[c.from:])
		b.contains(t, "copy", p, to)
	}
	must(t, b.d.Copy(dst, 3<<20, dst, 1, 2<<20)) // inside one segment
	copy(to[3<<20:5<<20], bytes.Clone(to[1:1+2<<20]))
	b.contains(t, "copy inside a segment", p, to)
	must(t, b.d.Copy(dst, 1<<20, dst, 0, 1<<20)) // ranges that only touch
	copy(to[1<<20:2<<20], to[:1<<20])
	b.contains(t, "copy of adjoining ranges", p, to)

	wantErr(t, "overlapping copy", b.d.Copy(dst, 100, dst, 0, 101), device.ErrRange)
	wantErr(t, "overlapping copy", b.d.Copy(dst, 0, dst, 100, 101), device.ErrRange)
	b.contains(t, "refused copy", p, to)
}

func testFill(t *testing.T, b *bench) {
	content := pattern(b.long(), 3)
	f := fileOf(t, content)
	for _, weights := range []bool{false, true} {
		s, err := b.d.Create(context.Background(), b.long(), device.CreateOptions{Weights: weights})
		must(t, err)
		want := make([]byte, s.Bytes())
		for _, c := range []struct{ off, from, n int64 }{
			{5, 11, 100},
			{2<<20 - 1, 3, 2<<20 + 2},
			{1<<20 + 1, 9, 17 << 20},
			{s.Bytes() - 77, 1, 77},
			{0, 0, 0},
		} {
			got, err := b.d.Fill(context.Background(), s, c.off, f, c.from, c.n)
			must(t, err)
			if got != c.n {
				t.Fatalf("fill of %d bytes placed %d", c.n, got)
			}
			copy(want[c.off:], content[c.from:c.from+c.n])
		}
		if weights {
			must(t, b.d.Seal(s))
		}
		b.contains(t, "fill", b.consumer(t, s, device.ReadOnly), want)
		b.letGo(t, s)
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != int64(len(content)) {
		t.Errorf("fill moved the file's own offset to %d (%v)", at, err)
	}
}

func testFillParallel(t *testing.T, b *bench) {
	content := pattern(b.long(), 4)
	f := fileOf(t, content)
	s, err := b.d.Create(context.Background(), b.long(), device.CreateOptions{Weights: true})
	must(t, err)
	const piece = 1<<20 + 4321 // many workers meet in every huge page
	var group sync.WaitGroup
	next := make(chan int64)
	for range 4 {
		group.Go(func() {
			for off := range next {
				n := min(piece, int64(len(content))-off)
				if _, err := b.d.Fill(context.Background(), s, off, f, off, n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for off := int64(0); off < int64(len(content)); off += piece {
		next <- off
	}
	close(next)
	group.Wait()
	must(t, b.d.Seal(s))
	b.contains(t, "parallel fill", b.consumer(t, s, device.ReadOnly), content)
	if b.memfd() {
		if got := blockBytes(t, s.File()); got != s.Bytes() {
			t.Errorf("the kernel holds %d bytes of filled weights of %d", got, s.Bytes())
		}
	}
}

func testFillShort(t *testing.T, b *bench) {
	content := pattern(3<<20+17, 5)
	f := fileOf(t, content)
	for _, weights := range []bool{false, true} {
		s, err := b.d.Create(context.Background(), b.bytes, device.CreateOptions{Weights: weights})
		must(t, err)
		got, err := b.d.Fill(context.Background(), s, 1, f, 0, b.bytes-1)
		wantErr(t, "fill of a short file", err, io.ErrUnexpectedEOF)
		if got != int64(len(content)) {
			t.Errorf("fill placed %d bytes of a file of %d", got, len(content))
		}
		got, err = b.d.Fill(context.Background(), s, 0, f, int64(len(content))+1, 1)
		wantErr(t, "fill from beyond the end", err, io.ErrUnexpectedEOF)
		if got != 0 {
			t.Errorf("fill from beyond the end placed %d bytes", got)
		}
	}
}

func testFillTruncated(t *testing.T, b *bench) {
	f := fileOf(t, pattern(b.long(), 6))
	s := b.scratch(t, b.long())
	filled := make(chan error, 1)
	running := make(chan struct{})
	go func() {
		var err error
		for first := true; err == nil; first = false {
			_, err = b.d.Fill(context.Background(), s, 0, f, 0, s.Bytes())
			if first {
				close(running)
			}
		}
		filled <- err
	}()
	<-running
	must(t, f.Truncate(4097))
	wantErr(t, "fill of a file that is truncated meanwhile", <-filled, io.ErrUnexpectedEOF)
}

func testRanges(t *testing.T, b *bench) {
	s, other := b.scratch(t, b.bytes), b.scratch(t, b.bytes)
	f := fileOf(t, pattern(b.bytes, 7))
	p := b.consumer(t, s, device.ReadOnly)
	for _, r := range []struct{ off, n int64 }{
		{-1, 1}, {0, -1}, {0, b.bytes + 1}, {b.bytes, 1}, {b.bytes + 1, 0}, {1, b.bytes},
		{1 << 62, 1 << 62}, {1, 1<<63 - 1}, {-1 << 63, 1},
	} {
		wantErr(t, "clear", b.d.Clear(s, r.off, r.n, 1), device.ErrRange)
		wantErr(t, "copy to", b.d.Copy(s, r.off, other, 0, r.n), device.ErrRange)
		wantErr(t, "copy from", b.d.Copy(s, 0, other, r.off, r.n), device.ErrRange)
		n, err := b.d.Fill(context.Background(), s, r.off, f, 0, r.n)
		wantErr(t, "fill", err, device.ErrRange)
		if n != 0 {
			t.Errorf("fill outside of the range placed %d bytes", n)
		}
	}
	if _, err := b.d.Fill(context.Background(), s, 0, f, -1, 1); err == nil {
		t.Error("fill from a negative file offset must fail")
	}
	b.contains(t, "refused calls", p, make([]byte, b.bytes))
}

func testCancel(t *testing.T, b *bench) {
	before := b.ours(t)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := b.d.Create(ended, b.bytes, device.CreateOptions{})
	wantErr(t, "create with an ended context", err, context.Canceled)

	// Each look at the context in turn is the one that sees it end.
	last := 0 // the latest look at which a create can still be cancelled
	for looks := range 100 {
		s, err := b.d.Create(&after{context.Background(), looks}, b.long(), device.CreateOptions{})
		if err == nil {
			must(t, b.d.Destroy(s))
			break
		}
		last = looks
		wantErr(t, "create cancelled midway", err, context.Canceled)
		if got := b.ours(t); got != before {
			t.Fatalf("a create cancelled at look %d left %d bytes", looks, got-before)
		}
	}
	// What was promised to creations that failed can be had again.
	info := b.d.Info()
	half := info.PhysicalBytes / 2 / info.GranularityBytes * info.GranularityBytes
	for range 3 {
		_, err := b.d.Create(&after{context.Background(), last}, half, device.CreateOptions{})
		wantErr(t, "create cancelled midway", err, context.Canceled)
	}
	must(t, b.d.Destroy(b.scratch(t, half)))

	f := fileOf(t, pattern(b.long(), 8))
	s := b.scratch(t, b.long())
	_, err = b.d.Fill(ended, s, 0, f, 0, s.Bytes())
	wantErr(t, "fill with an ended context", err, context.Canceled)
	for looks := range 100 {
		n, err := b.d.Fill(&after{context.Background(), looks}, s, 0, f, 0, s.Bytes())
		if err == nil {
			break
		}
		wantErr(t, "fill cancelled midway", err, context.Canceled)
		if n < 0 || n >= s.Bytes() {
			t.Fatalf("fill cancelled at look %d says that it placed %d bytes of %d", looks, n, s.Bytes())
		}
	}
}

func testConcurrency(t *testing.T, b *bench) {
	g := b.d.Info().GranularityBytes
	bytes := max(g, 512<<10)
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for range 20 {
				s, err := b.d.Create(context.Background(), bytes, device.CreateOptions{Weights: worker%2 == 0})
				if err != nil {
					t.Error(err)
					return
				}
				err = b.d.Clear(s, 0, bytes, byte(worker))
				if worker%2 == 0 {
					err = errors.Join(err, b.d.Seal(s))
				}
				f, errExport := b.d.Export(s, device.ReadOnly)
				if err := errors.Join(err, errExport); err != nil {
					t.Error(err)
					return
				}
				if _, err := b.d.Sample(); err != nil {
					t.Error(err)
				}
				proves := b.d.Info().ProvesRelease
				if ok, err := b.d.Released(s); proves && (ok || err != nil) {
					t.Errorf("released is %v (%v) while an exported descriptor is open", ok, err)
				}
				_ = f.Close()
				if ok, err := b.d.Released(s); proves && (!ok || err != nil) {
					t.Errorf("released is %v (%v) after the descriptor was closed", ok, err)
				}
				if err := b.d.Destroy(s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got := b.ours(t); got != 0 {
		t.Errorf("%d bytes are left", got)
	}
}
