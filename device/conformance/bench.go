//go:build linux

package conformance

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/isobar-project/isobar/device"
)

// memfd is true when descriptors are files that the kernel's calls work on.
func (b *bench) memfd() bool { return b.d.Info().HandleKind == "memfd" }

// scratch makes a segment of scratch.
func (b *bench) scratch(t *testing.T, bytes int64) device.Segment {
	t.Helper()
	s, err := b.d.Create(context.Background(), bytes, device.CreateOptions{Label: "conformance"})
	must(t, err)
	return s
}

// weights makes unsealed weights with this content.
func (b *bench) weights(t *testing.T, content []byte) device.Segment {
	t.Helper()
	s, err := b.d.Create(context.Background(), int64(len(content)), device.CreateOptions{Weights: true})
	must(t, err)
	b.fill(t, s, 0, content)
	return s
}

// fill writes content into a segment by way of a file.
func (b *bench) fill(t *testing.T, s device.Segment, off int64, content []byte) {
	t.Helper()
	f := fileOf(t, content)
	n, err := b.d.Fill(context.Background(), s, off, f, 0, int64(len(content)))
	must(t, err)
	if n != int64(len(content)) {
		t.Fatalf("fill placed %d bytes of %d", n, len(content))
	}
}

// export gives an exported descriptor that the test closes.
func (b *bench) export(t *testing.T, s device.Segment, m device.Mode) *os.File {
	t.Helper()
	f, err := b.d.Export(s, m)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// session gives a segment to another process, as the data socket does, without
// attaching it there.
func (b *bench) session(t *testing.T, s device.Segment, m device.Mode) *process {
	t.Helper()
	f := b.export(t, s, m)
	p := start(t, roleConsumer, f)
	must(t, f.Close())
	return p
}

// consumer is a session that has attached the segment.
func (b *bench) consumer(t *testing.T, s device.Segment, m device.Mode) *process {
	t.Helper()
	p := b.session(t, s, m)
	p.ok("attach %d %d", s.Bytes(), m)
	return p
}

// contains checks, in another process, that the whole segment holds exactly want.
func (b *bench) contains(t *testing.T, what string, p *process, want []byte) {
	t.Helper()
	if got := p.sum(0, int64(len(want))); got != checksum(want) {
		t.Errorf("%s: another process sees checksum %s, want %s", what, got, checksum(want))
	}
}

// released checks the proof of release.
func (b *bench) released(t *testing.T, when string, s device.Segment, want bool) {
	t.Helper()
	got, err := b.d.Released(s)
	if err != nil {
		t.Errorf("%s: released: %v", when, err)
	} else if got != want {
		t.Errorf("%s: released is %v, want %v", when, got, want)
	}
}

// letGo destroys a segment that another process may map: a driver that sees it says so.
func (b *bench) letGo(t *testing.T, s device.Segment) {
	t.Helper()
	err := b.d.Destroy(s)
	if owed := (*device.OwedError)(nil); errors.As(err, &owed) {
		if len(owed.Holders) == 0 || owed.Bytes != s.Bytes() {
			t.Errorf("destroy of what another process maps says %v, of %+v", err, owed.Holders)
		}
		return
	}
	must(t, err)
}

// ours is what the driver says its live segments occupy.
func (b *bench) ours(t *testing.T) int64 {
	t.Helper()
	sample, err := b.d.Sample()
	must(t, err)
	return sample.OursBytes
}

// after is a context that ends at its n-th look: a cancellation in the midst of
// work, at the same place every time.
type after struct {
	context.Context
	looks int
}

func (a *after) Err() error {
	if a.looks--; a.looks < 0 {
		return context.Canceled
	}
	return nil
}
