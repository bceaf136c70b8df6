package weights

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
)

// ggufCursor reads a GGUF header front to back, through a small buffer, hashing it
// on the way. Every length is checked against what is left before it is believed.
type ggufCursor struct {
	in     *bufio.Reader
	path   string
	pos    int64
	limit  int64 // header bytes that may be read
	capped bool  // limit is the reader's, not the file's end
	sum    hash.Hash
	bad    error // first fault; every later call answers zero values
	// scratch is here because a local array would be allocated on each call.
	scratch [4096]byte
}

func newGGUFCursor(f io.ReaderAt, path string, limit int64, capped bool) *ggufCursor {
	return &ggufCursor{
		in:     bufio.NewReaderSize(io.NewSectionReader(f, 0, limit), 64<<10),
		path:   path,
		limit:  limit,
		capped: capped,
		sum:    sha256.New(),
	}
}

func (c *ggufCursor) digest() (d [sha256.Size]byte) {
	c.sum.Sum(d[:0])
	return d
}

// left is how many bytes the header may still have.
func (c *ggufCursor) left() int64 { return c.limit - c.pos }

func (c *ggufCursor) fail(format string, args ...any) {
	if c.bad == nil {
		c.bad = &FormatError{c.path, c.pos, fmt.Sprintf(format, args...)}
	}
}

// room reports whether n more bytes can come.
func (c *ggufCursor) room(n int64) bool {
	if c.bad == nil && n > c.left() {
		if c.capped {
			c.fail("header is longer than the limit of %d bytes", c.limit)
		} else {
			c.fail("file ends inside its header")
		}
	}
	return c.bad == nil
}

func (c *ggufCursor) read(b []byte) {
	if !c.room(int64(len(b))) {
		return
	}
	n, err := io.ReadFull(c.in, b)
	c.sum.Write(b[:n])
	c.pos += int64(n)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		c.fail("file became shorter while its header was read")
	default:
		c.bad = &ReadError{File: c.path, Err: bare(err)}
	}
}

// skip passes over n bytes.
func (c *ggufCursor) skip(n int64) {
	for n > 0 && c.room(n) {
		part := c.scratch[:min(n, int64(len(c.scratch)))]
		c.read(part)
		n -= int64(len(part))
	}
}

// uint reads a little-endian number of 1, 2, 4 or 8 bytes.
func (c *ggufCursor) uint(n int64) uint64 {
	clear(c.scratch[:8])
	c.read(c.scratch[:n])
	if c.bad != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(c.scratch[:8])
}

func (c *ggufCursor) u32() uint32 { return uint32(c.uint(4)) }
func (c *ggufCursor) u64() uint64 { return c.uint(8) }

// length reads the length of a string, at most limit.
func (c *ggufCursor) length(limit int64) int64 {
	n := c.u64()
	if n > uint64(limit) && c.bad == nil {
		c.fail("string of %d bytes; here are at most %d (of the file, the header limit or the format)", n, limit)
	}
	if c.bad != nil {
		return 0
	}
	return int64(n)
}

// str reads a string of at most limit bytes.
func (c *ggufCursor) str(limit int64) string {
	b := make([]byte, c.length(min(limit, c.left())))
	c.read(b)
	if c.bad != nil {
		return ""
	}
	return string(b)
}

// text reads a string of up to keep bytes; a longer one is passed over.
func (c *ggufCursor) text(keep int64) (s string, whole bool) {
	n := c.length(c.left())
	if n > keep {
		c.skip(n)
		return "", false
	}
	b := make([]byte, n)
	c.read(b)
	return string(b), c.bad == nil
}

// count reads how many things of at least each bytes follow, at most limit.
func (c *ggufCursor) count(limit, each int64, of string) int64 {
	n := c.u64()
	if c.bad != nil {
		return 0
	}
	if n > uint64(limit) {
		c.fail("%d %s; at most %d are possible here", n, of, limit)
		return 0
	}
	if int64(n) > c.left()/each {
		c.fail("%d %s do not fit the file or the header limit", n, of)
		return 0
	}
	return int64(n)
}

func f32(raw uint64) float32 { return math.Float32frombits(uint32(raw)) }
func f64(raw uint64) float64 { return math.Float64frombits(raw) }
