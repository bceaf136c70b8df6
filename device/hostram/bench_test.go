//go:build linux

package hostram_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostram"
)

// each runs work for pieces of total bytes on so many threads.
func each(threads int, total, piece int64, work func(off, n int64) error) error {
	var group sync.WaitGroup
	next := make(chan int64)
	failed := make(chan error, threads)
	for range threads {
		group.Go(func() {
			var bad error
			for off := range next {
				if bad == nil {
					bad = work(off, min(piece, total-off))
				}
			}
			failed <- bad
		})
	}
	for off := int64(0); off < total; off += piece {
		next <- off
	}
	close(next)
	group.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkLoad loads a cached file into fresh shared memory, and does the same with
// a bare pread loop into a fresh memfd of the same kind of pages, populated first,
// the two in turn. It reports both medians and their ratio, with the making of the
// pages counted on both sides; "bare-copy" leaves it out on the bare side alone.
//
//	go test ./device/hostram -run '^$' -bench Load -benchtime 10x
func BenchmarkLoad(b *testing.B) {
	const total, piece = 512 << 20, 8 << 20
	path := filepath.Join(b.TempDir(), "model")
	content := make([]byte, total)
	for i := range content {
		content[i] = byte(i * 7)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for _, pages := range []string{"huge", "small"} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", pages, threads), func(b *testing.B) {
				d, err := hostram.New(hostram.Config{ID: "ram-0", SmallPages: pages == "small"})
				if err != nil {
					b.Fatal(err)
				}
				defer d.Close()
				var ours, bare, bareCopy []time.Duration
				for b.Loop() {
					ours = append(ours, loadOurs(b, d, file, threads, total, piece))
					whole, copying := loadBare(b, d, file, threads, total, piece)
					bare, bareCopy = append(bare, whole), append(bareCopy, copying)
				}
				rate := func(list []time.Duration) float64 {
					slices.Sort(list)
					return total / list[len(list)/2].Seconds() / 1e9
				}
				b.ReportMetric(rate(ours), "GB/s")
				b.ReportMetric(rate(bare), "bare-GB/s")
				b.ReportMetric(rate(bareCopy), "bare-copy-GB/s")
				b.ReportMetric(rate(ours)/rate(bare), "of-bare")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func loadOurs(b *testing.B, d *hostram.Driver, file *os.File, threads int, total, piece int64) time.Duration {
	b.Helper()
	ctx := context.Background()
	begin := time.Now()
	s, err := d.Create(ctx, total, device.CreateOptions{Weights: true})
	if err != nil {
		b.Fatal(err)
	}
	if err := each(threads, total, piece, func(off, n int64) error {
		_, err := d.Fill(ctx, s, off, file, off, n)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	if err := d.Seal(s); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	if err := d.Destroy(s); err != nil {
		b.Fatal(err)
	}
	return took
}

// loadBare makes the pages as the driver makes those of scratch, with all threads,
// and then reads.
func loadBare(b *testing.B, d *hostram.Driver, file *os.File, threads int, total, piece int64) (whole, copying time.Duration) {
	b.Helper()
	ctx := context.Background()
	begin := time.Now()
	// One segment a thread, so that they are populated in parallel.
	part := total / int64(threads)
	memory := make([][]byte, threads)
	segments := make([]device.Segment, threads)
	if err := each(threads, total, part, func(off, n int64) error {
		i := off / part
		s, err := d.Create(ctx, n, device.CreateOptions{})
		if err != nil {
			return err
		}
		segments[i] = s
		memory[i], err = unix.Mmap(int(s.File().Fd()), 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		return unix.Madvise(memory[i], unix.MADV_POPULATE_WRITE)
	}); err != nil {
		b.Fatal(err)
	}
	populated := time.Now()
	if err := each(threads, total, piece, func(off, n int64) error {
		_, err := file.ReadAt(memory[off/part][off%part:][:n], off)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	end := time.Now()
	for i := range memory {
		_ = unix.Munmap(memory[i])
		if err := d.Destroy(segments[i]); err != nil {
			b.Fatal(err)
		}
	}
	return end.Sub(begin), end.Sub(populated)
}

// BenchmarkCreate makes and gives back scratch; BenchmarkClear zeroes 64 MiB, what a
// pooled segment costs before it reaches another owner.
func BenchmarkCreate(b *testing.B) {
	for _, size := range []int64{mib, 4 * mib, 16 * mib, 64 * mib} {
		for _, small := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dMiB/small=%v", size/mib, small), func(b *testing.B) {
				d, err := hostram.New(hostram.Config{ID: "ram-0", SmallPages: small})
				if err != nil {
					b.Fatal(err)
				}
				defer d.Close()
				b.SetBytes(size)
				for b.Loop() {
					s, err := d.Create(context.Background(), size, device.CreateOptions{})
					if err != nil {
						b.Fatal(err)
					}
					if err := d.Destroy(s); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkClear(b *testing.B) {
	for _, small := range []bool{false, true} {
		for _, value := range []byte{0, 1} {
			b.Run(fmt.Sprintf("64MiB/small=%v/value=%d", small, value), func(b *testing.B) {
				d, s := benchSegment(b, small)
				b.SetBytes(s.Bytes())
				for b.Loop() {
					if err := d.Clear(s, 0, s.Bytes(), value); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkReleased(b *testing.B) {
	d, s := benchSegment(b, false)
	for b.Loop() {
		if ok, err := d.Released(s); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkExport(b *testing.B) {
	d, s := benchSegment(b, false)
	for b.Loop() {
		f, err := d.Export(s, device.ReadWrite)
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}

func BenchmarkSample(b *testing.B) {
	d, _ := benchSegment(b, false)
	for b.Loop() {
		if _, err := d.Sample(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchSegment(b *testing.B, small bool) (*hostram.Driver, device.Segment) {
	b.Helper()
	d, err := hostram.New(hostram.Config{ID: "ram-0", SmallPages: small})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	s, err := d.Create(context.Background(), 64*mib, device.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return d, s
}

// BenchmarkHolders is the walk through all processes of the machine.
func BenchmarkHolders(b *testing.B) {
	d, s := benchSegment(b, false)
	for b.Loop() {
		if _, err := d.Holders(s); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkImport is what take-over pays for a segment, closing it included.
func BenchmarkImport(b *testing.B) {
	_, s := benchSegment(b, false)
	next, err := hostram.New(hostram.Config{ID: "ram-0"})
	if err != nil {
		b.Fatal(err)
	}
	defer next.Close()
	for b.Loop() {
		fd, err := unix.FcntlInt(s.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		taken, err := next.Import(os.NewFile(uintptr(fd), "taken over"), s.Bytes(), device.ImportOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := next.Destroy(taken); err != nil {
			b.Fatal(err)
		}
	}
}
