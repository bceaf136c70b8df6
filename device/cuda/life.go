//go:build linux

package cuda

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// checkSize refuses what is not a positive multiple of the granularity.
func (d *Driver) checkSize(bytes int64) error {
	if g := d.info.GranularityBytes; bytes <= 0 || bytes%g != 0 {
		return fmt.Errorf("segment of %d bytes, granularity %d: %w", bytes, g, device.ErrSize)
	}
	return nil
}

// promise counts bytes that are about to be made, unless they cannot fit.
func (d *Driver) promise(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > d.info.PhysicalBytes-d.bytes {
		return fmt.Errorf("%d bytes asked for, %d of %d are segments: %w", bytes, d.bytes, d.info.PhysicalBytes, device.ErrOutOfMemory)
	}
	d.bytes += bytes
	return nil
}

func (d *Driver) unpromise(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes -= bytes
}

// Create implements device.Driver. Scratch is zero: what the driver hands out may hold what
// another process left. Of weights, what has not been filled is set to zero when they are
// sealed, or read.
func (d *Driver) Create(ctx context.Context, bytes int64, o device.CreateOptions) (device.Segment, error) {
	s, err := d.Begin(ctx, bytes, o)
	if err != nil {
		return nil, err
	}
	if err := d.Finish(ctx, s); err != nil {
		return nil, errors.Join(err, d.Destroy(s))
	}
	return s, nil
}

// Begin implements device.Stager.
func (d *Driver) Begin(ctx context.Context, bytes int64, o device.CreateOptions) (device.Segment, error) {
	fail := func(err error) (device.Segment, error) {
		return nil, fmt.Errorf("%s: create segment of %d bytes: %w", d.c.ID, bytes, err)
	}
	if err := d.enter(); err != nil {
		return fail(err)
	}
	defer d.leave()
	if err := d.checkSize(bytes); err != nil {
		return fail(err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if err := d.promise(bytes); err != nil {
		return fail(err)
	}
	s := &Segment{d: d, bytes: bytes, weights: o.Weights, unclear: o.Weights || o.Unclear}
	d.making.begin() // until it is finished, or destroyed
	s.underWay = true
	err := d.control.do(func() error {
		if err := d.make(s); err != nil {
			return err
		}
		d.mu.Lock()
		d.live[s] = struct{}{} // here, so that a sample finds it where the driver has it
		d.mu.Unlock()
		return nil
	})
	if err != nil {
		d.making.end()
		d.unpromise(bytes)
		return fail(d.fault(err))
	}
	d.mu.Lock()
	err = d.places.add(s)
	d.mu.Unlock()
	if o.Weights {
		s.cover.Begin(bytes)
		s.use.Lock()
		s.through() // it may be long until they are used: what is given back does not wait for that
		s.use.Unlock()
	}
	if err != nil {
		return fail(errors.Join(err, d.Destroy(s)))
	}
	return s, nil
}

// Finish implements device.Stager.
func (d *Driver) Finish(ctx context.Context, ds device.Segment) error {
	fail := func(err error) error { return fmt.Errorf("%s: finish segment: %w", d.c.ID, err) }
	s, err := d.own(ds)
	if err == nil {
		err = d.enter()
	}
	if err != nil {
		return fail(err)
	}
	defer d.leave()
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	s.use.Lock()
	defer s.use.Unlock()
	if err := d.finish(s); err != nil {
		return fail(err)
	}
	return nil
}

// complete finishes weights that are only begun.
func (d *Driver) complete(s *Segment) error {
	if !s.weights {
		return nil
	}
	s.use.RLock()
	err := s.usable()
	s.use.RUnlock()
	if !errors.Is(err, device.ErrUnfinished) {
		return nil // it is complete, or its user will see that it is destroyed
	}
	s.use.Lock()
	defer s.use.Unlock()
	return d.finish(s)
}

// finish maps and clears a segment, unless that has been done. use is held alone.
func (d *Driver) finish(s *Segment) error {
	if err := s.usable(); !errors.Is(err, device.ErrUnfinished) {
		return err
	}
	if !s.underWay {
		s.underWay = true
		d.making.begin()
	}
	defer s.through()
	err := d.control.do(func() error {
		if s.at == 0 {
			if err := d.place(s); err != nil {
				return err
			}
		}
		if s.unclear {
			return nil
		}
		return d.zero(s) // here, since to have a copy thread do it takes longer than that
	})
	if err != nil {
		return d.fault(err)
	}
	s.placed = true
	return nil
}

// through ends the making of a segment, once. use is held alone.
func (s *Segment) through() {
	if s.underWay {
		s.underWay = false
		s.d.making.end()
	}
}

// zero sets all of a new segment to zero, under control. When it fails nothing is under way
// either: who is told may unmap.
func (d *Driver) zero(s *Segment) error {
	err := d.cu.Set(s.at, 0, s.bytes, d.zeroes)
	if err == nil {
		err = d.cu.Sync(d.zeroes)
	}
	if err != nil {
		return errors.Join(err, d.cu.Sync(d.zeroes))
	}
	return nil
}

// make gets the memory of a segment and its descriptor, or nothing. Under control.
func (d *Driver) make(s *Segment) error {
	h, err := d.cu.Create(d.dev, s.bytes)
	if err != nil {
		return err
	}
	s.handle = h
	if s.file, err = d.export(h, "segment of "+d.c.ID); err != nil {
		return errors.Join(err, d.cu.Release(h))
	}
	return nil
}

// place maps a segment's handle and lets the GPU at it, or does nothing.
func (d *Driver) place(s *Segment) error {
	at, err := d.cu.Reserve(s.bytes)
	if err != nil {
		return err
	}
	if err := d.cu.Map(at, s.bytes, s.handle); err != nil {
		return errors.Join(err, d.cu.Free(at, s.bytes))
	}
	if err := d.cu.Access(at, s.bytes, d.dev, true); err != nil {
		return errors.Join(err, d.cu.Unmap(at, s.bytes), d.cu.Free(at, s.bytes))
	}
	s.at = at
	return nil
}

// Import implements device.Driver. That the memory is of the size that the record says, is
// checked by mapping it: more than there is cannot be mapped. What of unsealed weights has been
// written is not known: all of it counts.
func (d *Driver) Import(f *os.File, bytes int64, o device.ImportOptions) (device.Segment, error) {
	fail := func(err error) (device.Segment, error) {
		return nil, fmt.Errorf("%s: import segment of %d bytes: %w", d.c.ID, bytes, err)
	}
	if err := d.enter(); err != nil {
		return fail(err)
	}
	defer d.leave()
	if err := d.checkSize(bytes); err != nil {
		return fail(err)
	}
	sealed, err := marked(f)
	if err != nil {
		return fail(err)
	}
	s := &Segment{d: d, file: f, bytes: bytes, weights: o.Weights, placed: true}
	s.exported.Store(true) // by the process that made it, perhaps
	s.sealed.Store(o.Weights && (sealed || o.Sealed))
	d.mu.Lock()
	err = d.places.add(s)
	d.mu.Unlock()
	if err != nil {
		return fail(err)
	}
	if err := d.control.do(func() error { return d.openFile(s) }); err != nil {
		d.mu.Lock()
		d.places.remove(s)
		d.mu.Unlock()
		return fail(d.stranger(err))
	}
	d.mu.Lock()
	d.live[s] = struct{}{}
	d.bytes += bytes // they exist, whatever the limit says now
	d.mu.Unlock()
	return s, nil
}

// openFile gets at the memory behind a segment's descriptor, or does nothing. Under
// control.
func (d *Driver) openFile(s *Segment) error {
	h, err := d.cu.Import(int(s.file.Fd()))
	if err != nil {
		return err
	}
	s.handle = h
	if err := d.place(s); err != nil {
		return errors.Join(err, d.cu.Release(h))
	}
	return nil
}

// stranger makes of a refused import what it says: short of memory, lost, or not what the
// record says.
func (d *Driver) stranger(err error) error {
	var failed *api.Error
	if errors.As(err, &failed) && (failed.Code == api.OutOfMemory || failed.Code.Sticky() && failed.Code != api.UnknownError) {
		return d.fault(err)
	}
	return fmt.Errorf("%w: %w", device.ErrMismatch, err)
}

// Export implements device.Driver: a duplicate of the original descriptor. A session that has
// it can write, whatever m says: on a GPU the one who maps chooses.
func (d *Driver) Export(ds device.Segment, m device.Mode) (*os.File, error) {
	s, done, err := d.begin("export", ds)
	if err != nil {
		return nil, err
	}
	defer done()
	if s.weights && !s.Sealed() {
		return nil, fmt.Errorf("export: %w", device.ErrNotSealed)
	}
	s.exported.Store(true)
	fd, err := unix.FcntlInt(s.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("export: duplicate the descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), s.file.Name()), nil
}

// Released implements device.Driver: nobody but the one who maps knows.
func (d *Driver) Released(ds device.Segment) (bool, error) {
	_, done, err := d.begin("prove release", ds)
	if err != nil {
		return false, err
	}
	done()
	return false, fmt.Errorf("prove release: %w", device.ErrNoProof)
}

// Seal implements device.Driver. From now on this driver writes no more; nothing keeps those
// who map the memory from writing.
func (d *Driver) Seal(ds device.Segment) error {
	s, done, err := d.begin("seal", ds)
	if err != nil {
		return err
	}
	defer done()
	if !s.weights {
		return fmt.Errorf("seal: %w", device.ErrScratch)
	}
	if s.Sealed() {
		return nil
	}
	if err := d.settle("seal", s); err != nil {
		return err
	}
	if err := mark(s.file); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	s.sealed.Store(true)
	return nil
}

// Destroy implements device.Driver. The memory is given back on a thread of its own, so that
// one that hangs holds up no other.
func (d *Driver) Destroy(ds device.Segment) error { return d.destroy(ds, true) }

// destroy is Destroy; look has it look who else still maps the memory.
func (d *Driver) destroy(ds device.Segment, look bool) error {
	s, err := d.own(ds)
	if err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	s.use.Lock()
	was := s.dead
	s.dead = true
	s.through()
	s.use.Unlock()
	if was {
		return nil
	}
	s.back = make(chan struct{})
	d.mu.Lock()
	d.places.remove(s)
	s.leaves = true
	d.mu.Unlock()
	var before *standing
	if look && s.exported.Load() && d.lost() == nil {
		before = d.stand()
	}
	ended := make(chan error, 1)
	go func() { ended <- d.reap(s, before) }()
	overdue := make(chan struct{})
	timer := d.c.Clock.AfterFunc(d.c.UnmapTimeout, func() { close(overdue) })
	defer timer.Stop()
	select {
	case err = <-ended:
	case <-overdue:
		d.hangs(s)
		err = &device.OwedError{Bytes: s.bytes, Why: fmt.Sprintf("the driver's unmap hangs, for %v by now", d.c.UnmapTimeout), Back: s.back}
	}
	if err != nil {
		return fmt.Errorf("%s: destroy: %w", d.c.ID, err)
	}
	return nil
}

// reap gives a dead segment's memory back, once, and stops counting it when it is back. On a
// lost device it is the end of the process that does.
func (d *Driver) reap(s *Segment, before *standing) error {
	defer d.debts.gives()()
	d.making.pass()
	closed := s.file.Close()
	if errors.Is(closed, os.ErrClosed) {
		closed = nil
	}
	err := d.fault(onThread(d.cu, d.ctx, func() error {
		unmap := d.unmap(s)
		d.making.pass()
		release := d.cu.Release(s.handle)
		s.released = release == nil
		return errors.Join(unmap, release)
	}))
	switch {
	case errors.Is(err, device.ErrLost):
		d.discount(s)
		return closed
	case !s.unmapped || !s.released:
		return errors.Join(d.keeps(s, err), closed)
	}
	d.gaveBack(s.bytes)
	if owed := d.pins(s, before); owed != nil {
		return errors.Join(owed, closed)
	}
	d.discount(s)
	return errors.Join(err, closed)
}

// unmap ends this process's mapping of a dead segment. Somebody waits for what is being made,
// and the driver does one thing at a time: giving back gives way, call by call. It runs on a
// thread with the context.
func (d *Driver) unmap(s *Segment) error {
	if s.at == 0 { // it was only begun
		s.unmapped = true
		return nil
	}
	d.making.pass()
	if err := d.cu.Unmap(s.at, s.bytes); err != nil {
		return err
	}
	s.unmapped = true
	d.making.pass()
	return d.cu.Free(s.at, s.bytes)
}
