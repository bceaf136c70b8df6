package fdwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// readStep is how much memory a peer gets on the strength of a length it
	// claims; more only as the bytes arrive.
	readStep = 16 << 10
	// keepBytes is the largest body buffer kept between messages.
	keepBytes = 4 << 10
)

// Frame is a received message. Body is valid until the next Read.
type Frame struct {
	Body []byte
	FDs  Descriptors
}

// Close closes the descriptors that nobody took.
func (f *Frame) Close() { f.FDs.Close() }

// Descriptors are open file descriptors of this process; −1 stands for one that was
// taken or closed.
type Descriptors []int

// Close closes those that are left. It may be called again.
func (d Descriptors) Close() {
	for i, fd := range d {
		if fd >= 0 {
			_ = unix.Close(fd)
			d[i] = -1
		}
	}
}

// Take moves ownership of descriptor i to the caller: −1 if there is none.
func (d Descriptors) Take(i int) int {
	if i < 0 || i >= len(d) {
		return -1
	}
	fd := d[i]
	d[i] = -1
	return fd
}

// File is Take as an os.File; nil if there is none.
func (d Descriptors) File(i int, name string) *os.File {
	fd := d.Take(i)
	if fd < 0 {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

// Read waits for the next message. On failure the connection is closed, and no
// descriptor is left open.
func (c *Conn) Read() (Frame, error) {
	var f Frame
	err := c.read(&f)
	if err != nil {
		f.Close()
		return Frame{}, c.fail(err)
	}
	return f, nil
}

func (c *Conn) read(f *Frame) error {
	var header [headerBytes]byte
	if err := c.fill(header[:], f); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(header[:]))
	if n == 0 || n > int64(c.cfg.MaxFrameBytes) {
		return fmt.Errorf("%w: length %d is not within 1 and %d", ErrMalformed, n, c.cfg.MaxFrameBytes)
	}
	body, err := c.readBody(int(n), f)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if !isMap(body[0]) {
		return fmt.Errorf("%w: not a map", ErrMalformed)
	}
	if err := c.cfg.Guard(body); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	f.Body = body
	return nil
}

// readBody reads n bytes into the buffer, which grows with what has arrived.
func (c *Conn) readBody(n int, f *Frame) ([]byte, error) {
	if cap(c.body) > keepBytes {
		c.body = nil
	}
	buf := c.body[:0]
	for len(buf) < n {
		have := len(buf)
		want := min(n, max(2*have, readStep))
		if cap(buf) < want {
			grown := make([]byte, want)
			copy(grown, buf)
			buf = grown
		}
		buf = buf[:want]
		if err := c.fill(buf[have:], f); err != nil {
			return nil, err
		}
	}
	c.body = buf
	return buf, nil
}

// fill reads len(p) bytes and collects the descriptors that come with them. The
// end of the stream before the first byte is io.EOF, later io.ErrUnexpectedEOF.
func (c *Conn) fill(p []byte, f *Frame) error {
	for done := 0; done < len(p); {
		n, oobn, flags, _, err := c.nc.ReadMsgUnix(p[done:], c.oob)
		// Go asks for MSG_CMSG_CLOEXEC on every message it reads.
		if oobn > 0 {
			if cerr := collect(c.oob[:oobn], f); cerr != nil && err == nil {
				err = cerr
			}
		}
		switch {
		case errors.Is(err, io.EOF) && done > 0:
			return io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			return io.EOF // without the address that package net wraps around it
		case err != nil:
			return err
		case flags&unix.MSG_CTRUNC != 0:
			return fmt.Errorf("%w: descriptors were lost: more than %d, or no room in this process", ErrMalformed, c.cfg.MaxFDs)
		case len(f.FDs) > c.cfg.MaxFDs:
			return fmt.Errorf("%w: %d descriptors, %d are allowed", ErrMalformed, len(f.FDs), c.cfg.MaxFDs)
		}
		done += n
	}
	return nil
}

// collect adds the descriptors of a control buffer to f.
func collect(oob []byte, f *Frame) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("%w: control data: %w", ErrMalformed, err)
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(m)
		if err != nil {
			return fmt.Errorf("%w: control data: %w", ErrMalformed, err)
		}
		f.FDs = append(f.FDs, fds...)
	}
	return nil
}

// isMap reports whether b begins a MessagePack map.
func isMap(b byte) bool { return b&0xf0 == 0x80 || b == 0xde || b == 0xdf }
