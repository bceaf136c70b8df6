//go:build linux

package conformance

import (
	"bytes"
	"context"
	"testing"

	"github.com/isobar-project/isobar/device"
)

// testReadWrite holds what Read and Write do against another process's view of the bytes.
func testReadWrite(t *testing.T, b *bench) {
	n := b.long()
	s := b.scratch(t, n)
	p := b.consumer(t, s, device.ReadWrite)
	want := make([]byte, n)
	content := pattern(n, 8)
	for _, c := range []struct{ off, n int64 }{
		{0, 0},
		{n, 0},
		{5, 1},
		{4095, 2},
		{2<<20 - 1, 2<<20 + 2},
		{16<<20 - 5, 10},
		{1, 17 << 20},
		{n - 1, 1},
	} {
		must(t, b.d.Write(s, c.off, content[:c.n]))
		copy(want[c.off:], content[:c.n])
		b.contains(t, "write", p, want)
		got := make([]byte, c.n)
		must(t, b.d.Read(s, c.off, got))
		if !bytes.Equal(got, content[:c.n]) {
			t.Fatalf("%d bytes written at %d are read back otherwise", c.n, c.off)
		}
	}
	// What another process writes is read, too.
	p.ok("write %d %d %d", 4097, 100_000, 0xEE)
	copy(want[4097:], filled(100_000, 0xEE))
	whole := make([]byte, n)
	must(t, b.d.Read(s, 0, whole))
	if !bytes.Equal(whole, want) {
		t.Error("what another process wrote is read otherwise")
	}

	for _, c := range []struct{ off, n int64 }{{-1, 1}, {n, 1}, {n - 1, 2}, {1 << 62, 1}} {
		wantErr(t, "read out of range", b.d.Read(s, c.off, make([]byte, c.n)), device.ErrRange)
		wantErr(t, "write out of range", b.d.Write(s, c.off, make([]byte, c.n)), device.ErrRange)
	}
	b.contains(t, "refused write", p, want)

	w, err := b.d.Create(context.Background(), b.bytes, device.CreateOptions{Weights: true})
	must(t, err)
	b.fill(t, w, 0, content[:b.bytes])
	must(t, b.d.Seal(w))
	wantErr(t, "write to sealed weights", b.d.Write(w, 0, []byte{1}), device.ErrSealed)
	got := make([]byte, b.bytes)
	must(t, b.d.Read(w, 0, got))
	if !bytes.Equal(got, content[:b.bytes]) {
		t.Error("sealed weights are read otherwise")
	}
	must(t, b.d.Destroy(w))
	wantErr(t, "read of what is destroyed", b.d.Read(w, 0, got), device.ErrDestroyed)
	wantErr(t, "write to what is destroyed", b.d.Write(w, 0, got), device.ErrDestroyed)
}
