//go:build linux

package cuda_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// figures is what TestFigures measures: sizes for a GPU, or small ones that only show that it
// works.
type figures struct {
	t      *testing.T
	d      *cuda.Driver
	segs   []int64 // of segments that are made and given back
	bulk   int64   // of copies
	rounds int
	raw    map[string]float64 // bytes a second of what CUDA itself reaches
}

// row is one line of the table: the median of some rounds and the longest. It returns the
// median's rate.
func (f *figures) row(what string, bytes int64, rounds int, do func(i int) error) float64 {
	f.t.Helper()
	rate, line := f.measure(what, bytes, rounds, do)
	f.print(line)
	return rate
}

// than is row, with the share of what CUDA itself reaches.
func (f *figures) than(raw, what string, bytes int64, do func(i int) error) {
	f.t.Helper()
	rate, line := f.measure(what, bytes, f.rounds, do)
	f.print(fmt.Sprintf("%s %6.1f %% of %s", line, 100*rate/f.raw[raw], raw))
}

func (f *figures) measure(what string, bytes int64, rounds int, do func(i int) error) (float64, string) {
	f.t.Helper()
	var took []time.Duration
	for i := range rounds {
		began := time.Now()
		if err := do(i); err != nil {
			f.t.Fatalf("%s: %v", what, err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	line := fmt.Sprintf("%-44s %12v p50 %12v max", what, took[len(took)/2], took[len(took)-1])
	rate := float64(bytes) / took[len(took)/2].Seconds()
	if bytes > 0 {
		line += fmt.Sprintf(" %9.1f GB/s", rate/1e9)
	}
	return rate, line
}

func (f *figures) print(line string) {
	f.t.Helper()
	if theLane().real {
		fmt.Println(line)
	} else {
		f.t.Log(line)
	}
}

// TestFigures prints what the driver's calls take. On a GPU: go test -run TestFigures with
// ISOBAR_CUDA=real.
func TestFigures(t *testing.T) {
	c := cuda.Config{ID: "gpu-0"}
	f := &figures{t: t, segs: []int64{2 << 20, 16 << 20}, bulk: 16 << 20, rounds: 2, raw: map[string]float64{}}
	if theLane().real {
		f.segs, f.bulk, f.rounds = []int64{2 << 20, 64 << 20, 1 << 30, 8 << 30}, 4<<30, 5
	}
	gpus, err := theLane().runtime.GPUs()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if f.d, err = theLane().runtime.New(c); err != nil {
		t.Fatal(err)
	}
	defer f.d.Close()
	if theLane().real {
		i := f.d.Info()
		fmt.Printf("%d GPUs; %s, %s, %s, %d bytes, granularity %d, NUMA node %d\n", len(gpus), i.Name, i.UUID, i.Driver, i.PhysicalBytes, i.GranularityBytes, i.NUMANode)
		fmt.Printf("%-44s %12v\n", "taken into use", time.Since(began))
	}
	f.life()
	f.rawRows()
	f.bytes()
	f.tiers()
	if len(gpus) > 1 {
		f.peer()
	}
	f.views()
}

// life measures making, sharing and giving back.
func (f *figures) life() {
	for _, n := range f.segs {
		label := fmt.Sprintf("%d MiB", n>>20)
		rounds := int(min(2*int64(f.rounds), max(1, f.d.Info().PhysicalBytes/2/n))) // all are there at once
		list := make([]device.Segment, rounds)
		f.row("create "+label, 0, rounds, func(i int) (err error) {
			list[i], err = f.d.Create(context.Background(), n, device.CreateOptions{})
			return err
		})
		f.row("export "+label, 0, rounds, func(i int) error {
			file, err := f.d.Export(list[i], device.ReadOnly)
			if err == nil {
				err = file.Close()
			}
			return err
		})
		f.row("destroy "+label, 0, rounds, func(i int) error { return f.d.Destroy(list[i]) })
	}
}

// bytes measures moving them.
func (f *figures) bytes() {
	a, err := f.d.Create(context.Background(), f.bulk, device.CreateOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := f.d.Create(context.Background(), f.bulk, device.CreateOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	label := fmt.Sprintf(" %d MiB", f.bulk>>20)
	f.than("raw set", "clear"+label, f.bulk, func(int) error { return f.d.Clear(a, 0, f.bulk, 7) })
	f.than("raw on the device", "copy on the device"+label, f.bulk, func(int) error { return f.d.Copy(b, 0, a, 0, f.bulk) })
	host := make([]byte, f.bulk)
	f.row("write"+label, f.bulk, f.rounds, func(int) error { return f.d.Write(a, 0, host) })
	f.row("read"+label, f.bulk, f.rounds, func(int) error { return f.d.Read(a, 0, host) })

	file, err := os.Create(filepath.Join(f.t.TempDir(), "weights"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(host); err != nil {
		f.t.Fatal(err)
	}
	f.than("raw pinned to device", "fill from the page cache"+label, f.bulk, func(int) error {
		_, err := f.d.Fill(context.Background(), a, 0, file, 0, f.bulk)
		return err
	})
	if err := f.d.Destroy(a); err != nil {
		f.t.Error(err)
	}
	if err := f.d.Destroy(b); err != nil {
		f.t.Error(err)
	}
}

// views measures looking.
func (f *figures) views() {
	s, err := f.d.Create(context.Background(), 2<<20, device.CreateOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	f.row("sample", 0, 20*f.rounds, func(int) error { _, err := f.d.Sample(); return err })
	f.row("holders", 0, f.rounds, func(int) error { _, err := f.d.Holders(s); return err })
	f.row("use of a process", 0, f.rounds, func(int) error { _, err := f.d.UsedBy([]int{os.Getpid()}); return err })
	sample, err := f.d.Sample()
	if err != nil {
		f.t.Fatal(err)
	}
	own, err := f.d.Charge(os.Getpid())
	if err != nil {
		f.t.Fatal(err)
	}
	if theLane().real {
		fmt.Printf("sample %+v; NVML charges this process with %d bytes\n", sample, own)
	}
	if own < s.Bytes() {
		f.t.Errorf("NVML charges this process with %d bytes; it has a segment of %d", own, s.Bytes())
	}
}
