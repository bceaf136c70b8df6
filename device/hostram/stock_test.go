//go:build linux

package hostram_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/conformance"
	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/hostram"
)

const stocked = 16 * mib // the least that is kept

// The contract holds where the memory of weights is used again.
func TestConformanceWithAStock(t *testing.T) {
	conformance.Suite{Open: func() (device.Driver, error) {
		return hostram.New(hostram.Config{ID: "ram-0", PhysicalBytes: 160 << 20, StockBytes: 160 << 20})
	}}.Run(t)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// full makes sealed weights, every byte of which is value.
func full(t *testing.T, d *hostram.Driver, bytes int64, value byte) device.Lender {
	t.Helper()
	s := lender(t, d, bytes, device.CreateOptions{Weights: true})
	check(t, d.Clear(s, 0, bytes, value))
	check(t, d.Seal(s))
	return s
}

func stock(t *testing.T, d *hostram.Driver, what string, want int64) {
	t.Helper()
	if got := d.StockBytes(); got != want {
		t.Fatalf("%s: %d bytes are kept, want %d", what, got, want)
	}
}

// Weights get the memory of others that were destroyed, with what was entrusted of it and nothing
// of what it held.
func TestWeightsGetTheMemoryOfOthers(t *testing.T) {
	d := newHost(512*mib, 512*mib).open(t, hostram.Config{StockBytes: 64 * mib})
	a := full(t, d, stocked, 7)
	recalled := false
	var l device.Loan
	l, err := a.Entrust(func() { recalled = true; l.Return() })
	check(t, err)
	if !l.Writes() {
		t.Error("entrusted memory that may be used again is not mapped for writing")
	}
	check(t, d.Destroy(a))
	stock(t, d, "destroyed", stocked)
	if recalled {
		t.Error("recalled, though the memory lives on")
	}
	if s := mustSample(t, d); s.OursBytes != 0 {
		t.Errorf("sample %+v, want what is kept to be nobody's", s)
	}

	b := lender(t, d, stocked, device.CreateOptions{Weights: true})
	stock(t, d, "created anew", 0)
	if a.Backing() != b.Backing() || a.Backing() == nil {
		t.Error("the memory is another")
	}
	if err := d.Read(a, 0, make([]byte, 1)); err == nil {
		t.Error("the destroyed segment can be read")
	}
	if b.Sealed() {
		t.Error("sealed from birth")
	}
	if _, err := d.Export(b, device.ReadOnly); err == nil {
		t.Error("it leaves before it is sealed")
	}
	check(t, d.Write(b, 5, []byte{9}))
	check(t, d.Seal(b))
	got, want := make([]byte, stocked), make([]byte, stocked)
	want[5] = 9
	check(t, d.Read(b, 0, got))
	if !bytes.Equal(got, want) {
		t.Error("it shows what it held before")
	}
	if s := mustSample(t, d); s.OursBytes != stocked {
		t.Errorf("sample %+v", s)
	}
	if err := d.Write(b, 0, []byte{1}); err == nil {
		t.Error("it can be written when it is sealed")
	}
	check(t, d.Destroy(b))
	check(t, d.Close())
	if !recalled {
		t.Error("not recalled when the memory ended")
	}
}

// Only memory that nobody else has is kept, and only for weights of its size.
func TestWhatIsNotKept(t *testing.T) {
	d := newHost(512*mib, 512*mib).open(t, hostram.Config{StockBytes: 64 * mib})
	held := full(t, d, stocked, 1)
	f, err := d.Export(held, device.ReadOnly)
	check(t, err)
	check(t, d.Destroy(held))
	check(t, f.Close())
	stock(t, d, "held by a session", 0)
	check(t, d.Destroy(create(t, d, stocked, device.CreateOptions{})))
	stock(t, d, "scratch", 0)
	check(t, d.Destroy(full(t, d, stocked-mib, 1)))
	stock(t, d, "too small", 0)
	check(t, d.Destroy(full(t, d, 65*mib, 1)))
	stock(t, d, "more than is kept", 0)
	part := create(t, d, stocked, device.CreateOptions{Weights: true})
	check(t, d.Write(part, 0, []byte{1}))
	check(t, d.Destroy(part))
	stock(t, d, "without all its pages", 0)

	check(t, d.Destroy(full(t, d, stocked, 1)))
	other := full(t, d, 2*stocked, 1)
	scratch := create(t, d, stocked, device.CreateOptions{})
	stock(t, d, "others were created", stocked)
	check(t, d.Destroy(other))
	check(t, d.Destroy(scratch))
	stock(t, d, "two sizes", 3*stocked)
	check(t, d.Destroy(full(t, d, 3*stocked, 1)))
	stock(t, d, "the oldest went", 3*stocked)
}

// What is kept gives way: to everything else that is created, and to others on the machine; and it
// wanes while nobody asks for it.
func TestTheStockGivesWay(t *testing.T) {
	c := clock.NewManual(0, time.Unix(0, 0))
	var d *hostram.Driver
	taken := int64(0)
	figures := func() (hostmem.Figures, error) {
		used := taken
		if d != nil {
			used += d.StockBytes()
		}
		return hostmem.Figures{MemTotal: 512 * mib, MemAvailable: 512*mib - used, Levels: []hostmem.Level{{LimitBytes: 512 * mib, UsedBytes: used}}}, nil
	}
	d, err := hostram.New(hostram.Config{ID: "ram-0", Figures: figures, HeadroomBytes: -1, StockBytes: 128 * mib, LimitBytes: 6 * stocked, StockHalfLife: time.Second, Clock: c})
	check(t, err)
	defer func() { check(t, d.Close()) }()
	fill := func() {
		t.Helper()
		var list []device.Segment
		for range 4 {
			list = append(list, full(t, d, stocked, 1))
		}
		for _, s := range list {
			check(t, d.Destroy(s))
		}
		stock(t, d, "full", 4*stocked)
	}
	fill()
	big := create(t, d, 4*stocked, device.CreateOptions{})
	stock(t, d, "the limit counts both", 2*stocked)
	check(t, d.Destroy(big))

	fill()
	c.Advance(time.Second)
	taken = 511*mib - d.StockBytes() // others have all but 1 MiB of the rest
	scratch := create(t, d, stocked, device.CreateOptions{})
	stock(t, d, "nothing else is free", 3*stocked)
	check(t, d.Destroy(scratch))
	taken += 2 * mib
	mustSample(t, d)
	stock(t, d, "the machine is short", 0)
	taken = 0

	fill()
	for _, w := range []struct {
		after time.Duration
		want  int64
	}{{time.Second, 4}, {time.Second, 2}, {time.Second, 1}, {2 * time.Second, 0}} {
		c.Advance(w.after)
		mustSample(t, d)
		stock(t, d, "rested", w.want*stocked)
	}
}

// Whatever was done with memory that is used again and again, sealed weights hold what was written
// to them, and zeroes.
func TestUsedMemoryAgreesWithAModel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	content := bytes.Repeat([]byte{3, 1, 4, 1, 5}, int(mib))
	check(t, os.WriteFile(file, content, 0o600))
	f, err := os.Open(file)
	check(t, err)
	defer f.Close()
	for _, small := range []bool{false, true} {
		d := newHost(512*mib, 512*mib).open(t, hostram.Config{StockBytes: 64 * mib, SmallPages: small})
		check(t, d.Destroy(full(t, d, stocked, 0xEE)))
		source := full(t, d, stocked+mib, 0x55)
		rapid.Check(t, func(rt *rapid.T) {
			s := lender(t, d, stocked, device.CreateOptions{Weights: true})
			want := make([]byte, stocked)
			for range rapid.IntRange(0, 4).Draw(rt, "writes") {
				n := rapid.Int64Range(1, 3*mib).Draw(rt, "n")
				off := rapid.Int64Range(0, stocked-n).Draw(rt, "off")
				switch rapid.IntRange(0, 5).Draw(rt, "way") {
				case 0:
					check(t, d.Clear(s, off, n, 9))
					copy(want[off:], bytes.Repeat([]byte{9}, int(n)))
				case 1:
					check(t, d.Write(s, off, content[:n]))
					copy(want[off:], content[:n])
				case 2:
					_, err := d.Fill(context.Background(), s, off, f, 2, n)
					check(t, err)
					copy(want[off:], content[2:][:n])
				case 3:
					check(t, d.Copy(s, off, source, 1, n))
					copy(want[off:], bytes.Repeat([]byte{0x55}, int(n)))
				case 4:
					l, err := s.Lend(off, n, device.ReadWrite)
					check(t, err)
					half := n / 2
					check(t, l.Ready(half, n-half))
					copy(l.Bytes()[half:], content)
					copy(want[off+half:off+n], content)
					l.Return()
				case 5: // reads past the end of the file: what was there is written, no more
					end := int64(len(content)) - n/2
					_, err := d.Fill(context.Background(), s, off, f, end, n)
					if err == nil {
						rt.Fatal("the file has no end")
					}
					copy(want[off:], content[end:])
				}
			}
			if rapid.Bool().Draw(rt, "read") {
				check(t, d.Read(s, 0, make([]byte, 10)))
			}
			check(t, d.Seal(s))
			got := make([]byte, stocked)
			check(t, d.Read(s, 0, got))
			if !bytes.Equal(got, want) {
				for i := range got {
					if got[i] != want[i] {
						rt.Fatalf("byte %d is %d, want %d", i, got[i], want[i])
					}
				}
			}
			check(t, d.Destroy(s))
			if d.StockBytes() != stocked {
				rt.Fatalf("%d bytes are kept", d.StockBytes())
			}
		})
	}
}
