//go:build linux

package cuda_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
	"github.com/isobar-project/isobar/device/hostram"
)

// rawRows measures what CUDA reaches with a thread and a stream of its own, and nothing of ours
// but the segments: what the other rows are held against.
func (f *figures) rawRows() {
	a, b := scratch(f.t, f.d, f.bulk), scratch(f.t, f.d, f.bulk)
	cu, _, from := f.d.Raw(a)
	_, _, to := f.d.Raw(b)
	host, err := unix.Mmap(-1, 0, int(f.bulk), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	must(f.t, err)
	f.onStream(f.d, func(s api.Stream) {
		must(f.t, cu.Register(host))
		for _, c := range []struct {
			what string
			do   func() error
		}{
			{"raw pinned to device", func() error { return cu.ToDevice(to, host, s) }},
			{"raw device to pinned", func() error { return cu.ToHost(host, from, s) }},
			{"raw on the device", func() error { return cu.OnDevice(to, from, f.bulk, s) }},
			{"raw set", func() error { return cu.Set(to, 1, f.bulk, s) }},
		} {
			f.raw[c.what] = f.row(fmt.Sprintf("%s %d MiB", c.what, f.bulk>>20), f.bulk, 2*f.rounds+1, func(int) error {
				return errors.Join(c.do(), cu.Sync(s))
			})
		}
		must(f.t, cu.Unregister(host))
	})
	must(f.t, unix.Munmap(host))
	must(f.t, f.d.Destroy(a))
	must(f.t, f.d.Destroy(b))
}

// onStream runs do on a thread with the device's context, and a stream.
func (f *figures) onStream(d *cuda.Driver, do func(s api.Stream)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cu, ctx, _ := d.Raw(nil)
	must(f.t, cu.SetCurrent(ctx))
	s, err := cu.NewStream()
	must(f.t, err)
	do(s)
	must(f.t, cu.CloseStream(s))
	must(f.t, cu.SetCurrent(0))
}

// tiers measures the ways between main memory and the device, by segments as models have them.
func (f *figures) tiers() {
	ctx := context.Background()
	host, err := hostram.New(hostram.Config{ID: "ram-0"})
	must(f.t, err)
	defer host.Close()
	n := f.bulk
	label := fmt.Sprintf(" %d MiB", n>>20)
	up := scratch(f.t, f.d, n)

	idle, err := host.Create(ctx, n, device.CreateOptions{})
	must(f.t, err)
	f.than("raw pinned to device", "up from scratch"+label, n, func(int) error { return f.d.Pull(ctx, up, 0, idle, 0, n) })
	f.than("raw device to pinned", "down to scratch"+label, n, func(int) error { return f.d.Push(ctx, idle, 0, up, 0, n) })
	must(f.t, host.Destroy(idle))

	// Each round has fresh memory, as a demotion does.
	var down []device.Segment
	f.than("raw device to pinned", "demotion"+label, n, func(int) error {
		s, err := host.Create(ctx, n, device.CreateOptions{Weights: true})
		if err == nil {
			err = f.d.Push(ctx, s, 0, up, 0, n)
		}
		if err == nil {
			err = host.Seal(s)
		}
		for _, old := range down {
			must(f.t, host.Destroy(old))
		}
		down = []device.Segment{s}
		return err
	})
	below := down[0]
	f.row("up, not registered (once)"+label, n, 1, func(int) error { return f.d.Pull(ctx, up, 0, below, 0, n) })
	f.row("registered in the background, the rest of"+label, 0, 1, func(int) error { f.d.AwaitWarm(); return nil })
	f.print(fmt.Sprintf("%-44s %d bytes", "registered", f.d.RegisteredBytes()))
	f.than("raw pinned to device", "up, registered"+label, n, func(int) error { return f.d.Pull(ctx, up, 0, below, 0, n) })
	// By the pieces that a model's copy is cut into.
	const piece = 256 << 20
	f.than("raw pinned to device", "up, registered, by pieces of 256 MiB"+label, n, func(int) error {
		for at := int64(0); at < n; at += piece {
			if err := f.d.Pull(ctx, up, at, below, at, min(piece, n-at)); err != nil {
				return err
			}
		}
		return nil
	})
	fresh, err := host.Create(ctx, n, device.CreateOptions{})
	must(f.t, err)
	f.than("raw device to pinned", "down by pieces of 256 MiB"+label, n, func(int) error {
		for at := int64(0); at < n; at += piece {
			if err := f.d.Push(ctx, fresh, at, up, at, min(piece, n-at)); err != nil {
				return err
			}
		}
		return nil
	})
	f.row("let go of and destroyed"+label, 0, 1, func(int) error { return host.Destroy(below) })
	must(f.t, f.d.Destroy(up))
}

// peer measures the ways between two GPUs.
func (f *figures) peer() {
	ctx := context.Background()
	other, err := theLane().runtime.New(cuda.Config{ID: "gpu-1", Ordinal: 1})
	must(f.t, err)
	defer other.Close()
	n := f.bulk
	a, b := scratch(f.t, f.d, n), scratch(f.t, other, n)
	f.print(fmt.Sprintf("peers of %s: %q", f.d.Info().ID, f.d.Info().Peers))
	must(f.t, other.Pull(ctx, b, 0, a, 0, n)) // gives access
	cu, ours, from := f.d.Raw(a)
	_, theirs, to := other.Raw(b)
	label := fmt.Sprintf(" %d MiB", n>>20)
	f.onStream(other, func(s api.Stream) {
		f.raw["raw peer"] = f.row("raw peer"+label, n, 2*f.rounds+1, func(int) error {
			return errors.Join(cu.Between(to, theirs, from, ours, n, s), cu.Sync(s))
		})
		f.than("raw peer", "raw, as on one device, pulled"+label, n, func(int) error {
			return errors.Join(cu.OnDevice(to, from, n, s), cu.Sync(s))
		})
	})
	f.onStream(f.d, func(s api.Stream) {
		f.than("raw peer", "raw, as on one device, pushed"+label, n, func(int) error {
			return errors.Join(cu.OnDevice(to, from, n, s), cu.Sync(s))
		})
	})
	f.than("raw peer", "from the other GPU"+label, n, func(int) error { return other.Pull(ctx, b, 0, a, 0, n) })
	f.than("raw peer", "back"+label, n, func(int) error { return f.d.Pull(ctx, a, 0, b, 0, n) })
	must(f.t, f.d.Destroy(a))
	must(f.t, other.Destroy(b))
}
