package fdwire_test

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/fdwire"
)

// FuzzFrames sends arbitrary bytes, with descriptors on an arbitrary one of them,
// in two writes. Whatever comes: no panic, an end with a known error, no
// descriptor left, and every accepted body within its bounds.
func FuzzFrames(f *testing.F) {
	good := []byte(packet(f, message{Type: "hello", ID: 1, Text: "x"}))
	f.Add(good, uint16(0), byte(1))
	f.Add(append(append([]byte{}, good...), good...), uint16(len(good)), byte(3))
	f.Add(good[:len(good)-2], uint16(2), byte(2))
	f.Add([]byte{0, 0, 0, 5, 0xdf, 0xff, 0xff, 0xff, 0xff}, uint16(4), byte(9))
	f.Add([]byte{0, 0x10, 0, 1, 0x80}, uint16(0), byte(1))
	f.Add([]byte{}, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, stream []byte, at uint16, fds byte) {
		if len(stream) > 32<<10 {
			return // more than the socket takes without a reader
		}
		before := openFDs(t)
		c, raw := rawPair(t, fdwire.Config{MaxFDs: 4})
		cut := min(int(at), len(stream))
		if _, err := unix.Write(raw, stream[:cut]); err != nil && cut > 0 {
			t.Fatal(err)
		}
		if rest := stream[cut:]; len(rest) > 0 {
			var rights []byte
			if n := int(fds % 8); n > 0 {
				dups := make([]int, n)
				for i := range dups {
					dups[i] = raw
				}
				rights = unix.UnixRights(dups...)
			}
			if err := unix.Sendmsg(raw, rest, rights, nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		unix.Shutdown(raw, unix.SHUT_WR)
		for {
			frame, err := c.Read()
			if err != nil {
				if !errors.Is(err, fdwire.ErrMalformed) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("unexpected end: %v", err)
				}
				break
			}
			if len(frame.Body) == 0 || len(frame.Body) > len(stream) || len(frame.FDs) > 4 {
				t.Fatalf("%d bytes and %d descriptors of a stream of %d bytes", len(frame.Body), len(frame.FDs), len(stream))
			}
			frame.Close()
		}
		unix.Close(raw)
		// The raw end's number may be reused from here on, so the cleanup of
		// rawPair must not close it again: it closes a fresh one.
		if again, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, raw); err != nil || again != raw {
			t.Fatalf("descriptor %d is not free: %d, %v", raw, again, err)
		}
		if after := openFDs(t); after != before+1 {
			t.Fatalf("%d descriptors open, %d before", after, before+1)
		}
	})
}
