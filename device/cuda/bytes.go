//go:build linux

package cuda

import (
	"errors"
	"fmt"

	"github.com/isobar-project/isobar/device"
)

// writable is begin for a call that writes.
func (d *Driver) writable(what string, ds device.Segment) (*Segment, func(), error) {
	s, done, err := d.begin(what, ds)
	if err != nil {
		return nil, nil, err
	}
	if s.Sealed() {
		done()
		return nil, nil, fmt.Errorf("%s: %w", what, device.ErrSealed)
	}
	return s, done, nil
}

// told makes an error of a copy the device's.
func (d *Driver) told(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s: %w", d.c.ID, what, d.fault(err))
}

// Clear implements device.Driver.
func (d *Driver) Clear(ds device.Segment, off, n int64, value byte) error {
	s, done, err := d.writable("clear", ds)
	if err != nil {
		return err
	}
	defer done()
	if err := s.rangeOK("clear", off, n); err != nil {
		return err
	}
	_, err = s.write(off, n, all(n, func() error { return d.clear(s, off, n, value) }))
	return err
}

// all makes of what writes all of n bytes or fails one that says how many it wrote.
func all(n int64, do func() error) func() (int64, error) {
	return func() (int64, error) {
		if err := do(); err != nil {
			return 0, err
		}
		return n, nil
	}
}

func (d *Driver) clear(s *Segment, off, n int64, value byte) error {
	if n == 0 {
		return nil
	}
	return d.told("clear", d.lanes.with(func(l *lane) error {
		if err := d.cu.Set(s.pointer(off), value, n, l.stream); err != nil {
			return err
		}
		return l.finish()
	}))
}

// Copy implements device.Driver.
func (d *Driver) Copy(dst device.Segment, dstOff int64, src device.Segment, srcOff, n int64) error {
	to, done, err := d.writable("copy", dst)
	if err != nil {
		return err
	}
	defer done()
	from, err := d.own(src)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	if from != to {
		from.use.RLock()
		defer from.use.RUnlock()
		if err := from.usable(); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
	}
	if err := errors.Join(to.rangeOK("copy to", dstOff, n), from.rangeOK("copy from", srcOff, n)); err != nil {
		return err
	}
	if from == to && dstOff < srcOff+n && srcOff < dstOff+n {
		return fmt.Errorf("copy %d bytes from %d to %d of one segment: %w", n, srcOff, dstOff, device.ErrRange)
	}
	if n == 0 {
		return nil
	}
	if err := d.settle("copy", from); err != nil {
		return err
	}
	_, err = to.write(dstOff, n, all(n, func() error {
		return d.told("copy", d.lanes.with(func(l *lane) error {
			if err := d.cu.OnDevice(to.pointer(dstOff), from.pointer(srcOff), n, l.stream); err != nil {
				return err
			}
			return l.finish()
		}))
	}))
	return err
}

// Read implements device.Driver.
func (d *Driver) Read(ds device.Segment, off int64, b []byte) error {
	s, done, err := d.begin("read", ds)
	if err != nil {
		return err
	}
	defer done()
	if err := s.rangeOK("read", off, int64(len(b))); err != nil || len(b) == 0 {
		return err
	}
	if err := d.settle("read", s); err != nil {
		return err
	}
	return d.told("read", d.lanes.with(func(l *lane) error { return l.read(b, s.pointer(off)) }))
}

// Write implements device.Driver.
func (d *Driver) Write(ds device.Segment, off int64, b []byte) error {
	s, done, err := d.writable("write", ds)
	if err != nil {
		return err
	}
	defer done()
	if err := s.rangeOK("write", off, int64(len(b))); err != nil || len(b) == 0 {
		return err
	}
	_, err = s.write(off, int64(len(b)), all(int64(len(b)), func() error {
		return d.told("write", d.lanes.with(func(l *lane) error { return l.write(s.pointer(off), b) }))
	}))
	return err
}
