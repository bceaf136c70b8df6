//go:build linux

package cuda

import (
	"errors"

	"github.com/isobar-project/isobar/device/internal/cover"
)

// write runs what writes n bytes from off on, which says how many of them it wrote.
func (s *Segment) write(off, n int64, do func() (int64, error)) (int64, error) {
	fresh := s.cover.Claim(off, n)
	got, err := do()
	if got < n {
		s.cover.Disclaim(fresh, off+got)
	}
	return got, err
}

// settle sets to zero what nobody has written.
func (d *Driver) settle(what string, s *Segment) error {
	return s.cover.Close(func(gaps []cover.Span) error {
		return d.told(what, d.lanes.with(func(l *lane) error {
			for _, g := range gaps {
				if err := d.cu.Set(s.pointer(g.At), 0, g.End-g.At, l.stream); err != nil {
					return errors.Join(err, l.finish())
				}
			}
			return l.finish()
		}))
	})
}
