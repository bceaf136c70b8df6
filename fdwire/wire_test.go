package fdwire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/fdwire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type message struct {
	Type string `json:"type"`
	ID   uint64 `json:"id"`
	Text string `json:"text,omitempty"`
}

func pair(t testing.TB, a, b fdwire.Config) (*fdwire.Conn, *fdwire.Conn) {
	t.Helper()
	ca, cb, err := fdwire.Pair(a, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close(); cb.Close(); ca.Wait(); cb.Wait() })
	return ca, cb
}

func packet(t testing.TB, v any) fdwire.Packet {
	t.Helper()
	p, err := fdwire.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func memfd(t testing.TB, content string) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, []byte(content), 0); err != nil {
		t.Fatal(err)
	}
	return fd
}

// openFDs counts the descriptors of this process.
func openFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// memory is how many bytes were ever allocated.
func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// rawPair is a Conn and the bare socket at its other end.
func rawPair(t testing.TB, cfg fdwire.Config) (*fdwire.Conn, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	c, err := fdwire.FromFile(os.NewFile(uintptr(fds[0]), "socket"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	raw := fds[1]
	t.Cleanup(func() { c.Close(); c.Wait(); unix.Close(raw) })
	return c, raw
}

func TestMessagesKeepOrderAndTheirDescriptors(t *testing.T) {
	a, b := pair(t, fdwire.Config{}, fdwire.Config{})
	before := openFDs(t)
	// One message in three brings descriptors; they must not stray to neighbours
	// even though the kernel has all of them in one stream.
	const n = 60
	for i := range n {
		var fds []int
		for j := range (i % 3) * 2 {
			fds = append(fds, memfd(t, fmt.Sprintf("%d/%d", i, j)))
		}
		if err := a.Send(fdwire.Message{Packet: packet(t, message{Type: "m", ID: uint64(i)}), FDs: fds}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		f, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		var m message
		if err := fdwire.DecodeStrict(f.Body, &m); err != nil {
			t.Fatal(err)
		}
		if m.ID != uint64(i) || len(f.FDs) != (i%3)*2 {
			t.Fatalf("message %d arrived as %d with %d descriptors", i, m.ID, len(f.FDs))
		}
		for j, fd := range f.FDs {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Fatalf("descriptor %d: flags %x, %v: would leak into children", fd, flags, err)
			}
			buf := make([]byte, 16)
			k, err := unix.Pread(fd, buf, 0)
			if err != nil || string(buf[:k]) != fmt.Sprintf("%d/%d", i, j) {
				t.Fatalf("descriptor %d of message %d is %q", j, i, buf[:k])
			}
		}
		f.Close()
	}
	if after := openFDs(t); after != before {
		t.Fatalf("%d descriptors open, %d before", after, before)
	}
}

func TestManyDescriptorsInOneMessage(t *testing.T) {
	a, b := pair(t, fdwire.Config{}, fdwire.Config{})
	before := openFDs(t)
	var fds []int
	for range fdwire.MaxFDs {
		fds = append(fds, memfd(t, "x"))
	}
	if err := a.Send(fdwire.Message{Packet: packet(t, message{Type: "full"}), FDs: fds}); err != nil {
		t.Fatal(err)
	}
	f, err := b.Read()
	if err != nil || len(f.FDs) != fdwire.MaxFDs {
		t.Fatalf("%d descriptors, %v", len(f.FDs), err)
	}
	f.Close()
	one := memfd(t, "x")
	for range fdwire.MaxFDs + 1 {
		fds = append(fds, one)
	}
	var released bool
	err = a.Send(fdwire.Message{Packet: packet(t, message{Type: "over"}), FDs: fds[fdwire.MaxFDs:], Done: func() { released = true }})
	if !errors.Is(err, fdwire.ErrTooLong) || !released {
		t.Fatalf("%d descriptors: %v, released %v", fdwire.MaxFDs+1, err, released)
	}
	unix.Close(one)
	// A refused message does no harm to the connection.
	if err := a.Send(fdwire.Message{Packet: packet(t, message{Type: "after"})}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(); err != nil {
		t.Fatal(err)
	}
	if after := openFDs(t); after != before {
		t.Fatalf("%d descriptors open, %d before", after, before)
	}
}

func TestBreachesOfTheFramingCloseEverything(t *testing.T) {
	good := packet(t, message{Type: "m", ID: 7})
	guard := func(b []byte) error {
		if bytes.Contains(b, []byte("bad")) {
			return errors.New("guarded")
		}
		return nil
	}
	for _, tc := range []struct {
		name  string
		bytes []byte
		fds   int // descriptors with the first byte
		again int // descriptors with the second byte
		cfg   fdwire.Config
		want  error
	}{
		{name: "empty", bytes: []byte{0, 0, 0, 0}, fds: 2, want: fdwire.ErrMalformed},
		{name: "too long", bytes: []byte{0, 0x10, 0, 1}, fds: 2, want: fdwire.ErrMalformed},
		{name: "huge", bytes: []byte{0xff, 0xff, 0xff, 0xff, 1}, fds: 3, want: fdwire.ErrMalformed},
		{name: "longer than this reader takes", bytes: good, fds: 1, cfg: fdwire.Config{MaxFrameBytes: len(good) - 5}, want: fdwire.ErrMalformed},
		{name: "not a map", bytes: []byte{0, 0, 0, 1, 0x90}, fds: 2, want: fdwire.ErrMalformed},
		{name: "guard", bytes: packet(t, message{Type: "bad"}), fds: 2, want: fdwire.ErrMalformed},
		{name: "cut in the header", bytes: good[:3], fds: 2, want: io.ErrUnexpectedEOF},
		{name: "cut after the header", bytes: good[:4], fds: 2, want: io.ErrUnexpectedEOF},
		{name: "cut in the body", bytes: good[:len(good)-1], fds: 2, want: io.ErrUnexpectedEOF},
		{name: "more descriptors than allowed", bytes: good, fds: 9, cfg: fdwire.Config{MaxFDs: 4}, want: fdwire.ErrMalformed},
		{name: "one more than allowed", bytes: good, fds: 2, cfg: fdwire.Config{MaxFDs: 1}, want: fdwire.ErrMalformed},
		{name: "descriptors where none are allowed", bytes: good, fds: 1, cfg: fdwire.Config{MaxFDs: -1}, want: fdwire.ErrMalformed},
		{name: "too many in two parts", bytes: good, fds: 3, again: 2, cfg: fdwire.Config{MaxFDs: 4}, want: fdwire.ErrMalformed},
		{name: "end", bytes: nil, want: io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Guard = guard
			c, raw := rawPair(t, tc.cfg)
			fd := memfd(t, "x")
			defer unix.Close(fd)
			before := openFDs(t)
			rest := tc.bytes
			for _, n := range []int{tc.fds, tc.again} {
				if n == 0 {
					continue
				}
				var fds []int
				for range n {
					fds = append(fds, fd)
				}
				if err := unix.Sendmsg(raw, rest[:1], unix.UnixRights(fds...), nil, 0); err != nil {
					t.Fatal(err)
				}
				rest = rest[1:]
			}
			if _, err := unix.Write(raw, rest); err != nil && len(rest) > 0 {
				t.Fatal(err)
			}
			unix.Shutdown(raw, unix.SHUT_WR)
			if _, err := c.Read(); !errors.Is(err, tc.want) {
				t.Fatalf("read: %v, want %v", err, tc.want)
			}
			// The failure stays, and the connection is closed: one descriptor less.
			if _, err := c.Read(); !errors.Is(err, tc.want) {
				t.Fatalf("second read: %v, want %v", err, tc.want)
			}
			if err := c.Send(fdwire.Message{Packet: good}); !errors.Is(err, tc.want) {
				t.Fatalf("send after failure: %v, want %v", err, tc.want)
			}
			if after := openFDs(t); after != before-1 {
				t.Fatalf("%d descriptors open, %d before", after, before)
			}
		})
	}
}

func TestOutOfDescriptorsIsAnErrorNotALeak(t *testing.T) {
	c, raw := rawPair(t, fdwire.Config{})
	fd := memfd(t, "x")
	defer unix.Close(fd)
	good := packet(t, message{Type: "m"})
	if err := unix.Sendmsg(raw, good, unix.UnixRights(fd, fd, fd, fd, fd, fd), nil, 0); err != nil {
		t.Fatal(err)
	}
	before := openFDs(t)
	// Leave room for two more descriptors in this process. Descriptors are numbered
	// from the lowest free one, so the limit is the third free number.
	var probe [3]int
	for i := range probe {
		probe[i], _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(probe[2])
	fdwire.Descriptors(probe[:]).Close()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read()
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); e != nil {
		t.Fatal(e)
	}
	if !errors.Is(err, fdwire.ErrMalformed) {
		t.Fatalf("read without room: %v", err)
	}
	if after := openFDs(t); after != before-1 {
		t.Fatalf("%d descriptors open, %d before, one of them the connection", after, before)
	}
}

func TestASlowPeerIsDisconnectedAndNothingLeaks(t *testing.T) {
	before := openFDs(t)
	a, b := pair(t, fdwire.Config{QueueBytes: 1 << 20, QueueMessages: 100}, fdwire.Config{})
	big := packet(t, message{Type: "m", Text: string(make([]byte, 100<<10))})
	var done atomic.Int64
	sent := 0
	for {
		fd := memfd(t, "x")
		err := a.Send(fdwire.Message{Packet: big, FDs: []int{fd}, Done: func() { unix.Close(fd); done.Add(1) }})
		sent++
		if errors.Is(err, fdwire.ErrSlowPeer) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if sent > 1000 {
			t.Fatal("the queue has no bound")
		}
	}
	a.Wait()
	if int(done.Load()) != sent {
		t.Fatalf("%d messages, Done called %d times", sent, done.Load())
	}
	if _, err := a.Read(); !errors.Is(err, fdwire.ErrSlowPeer) {
		t.Fatalf("read: %v", err)
	}
	b.Close()
	if after := openFDs(t); after != before {
		t.Fatalf("%d descriptors open, %d before", after, before)
	}
}

func TestTheQueueDrainsInOrderWhenThePeerReads(t *testing.T) {
	a, b := pair(t, fdwire.Config{QueueBytes: 64 << 20}, fdwire.Config{})
	// Larger than the socket's buffer, so that every message goes in several pieces,
	// of which only the first may bring the descriptor.
	const n = 100
	text := string(make([]byte, 300<<10))
	for i := range n {
		fd := memfd(t, "x")
		if err := a.Send(fdwire.Message{Packet: packet(t, message{ID: uint64(i), Text: text}), FDs: []int{fd}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		f, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		var m message
		if err := fdwire.Decode(f.Body, &m); err != nil || m.ID != uint64(i) || len(f.FDs) != 1 || m.Text != text {
			t.Fatalf("message %d: %d, %d descriptors, %v", i, m.ID, len(f.FDs), err)
		}
		f.Close()
	}
	a.Wait()
	// And is direct again afterwards.
	if err := a.Send(fdwire.Message{Packet: packet(t, message{ID: n})}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(); err != nil {
		t.Fatal(err)
	}
}

func TestConcurrentSendersDoNotInterleave(t *testing.T) {
	a, b := pair(t, fdwire.Config{QueueBytes: 64 << 20, QueueMessages: 10000}, fdwire.Config{})
	const senders, each = 8, 100
	var wg sync.WaitGroup
	for s := range senders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				p, _ := fdwire.Encode(message{Type: fmt.Sprint(s), ID: uint64(i), Text: string(make([]byte, i*50))})
				if err := a.Send(fdwire.Message{Packet: p}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	next := map[string]uint64{}
	for range senders * each {
		f, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		var m message
		if err := fdwire.DecodeStrict(f.Body, &m); err != nil {
			t.Fatal(err)
		}
		if m.ID != next[m.Type] {
			t.Fatalf("sender %s: message %d, expected %d", m.Type, m.ID, next[m.Type])
		}
		next[m.Type]++
	}
	wg.Wait()
}

func TestCloseWakesTheReader(t *testing.T) {
	a, _ := pair(t, fdwire.Config{}, fdwire.Config{})
	got := make(chan error)
	go func() { _, err := a.Read(); got <- err }()
	a.Close()
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("read: %v", err)
	}
}

func TestTheLastWordsOfAPeerAreReadAfterASendFails(t *testing.T) {
	a, b := pair(t, fdwire.Config{}, fdwire.Config{})
	if err := b.Send(fdwire.Message{Packet: packet(t, message{Text: "because"})}); err != nil {
		t.Fatal(err)
	}
	b.Close()
	for range 2 {
		if err := a.Send(fdwire.Message{Packet: packet(t, message{Text: "why?"})}); !errors.Is(err, unix.EPIPE) {
			t.Fatalf("send: %v", err)
		}
	}
	f, err := a.Read()
	var m message
	if err != nil || fdwire.Decode(f.Body, &m) != nil || m.Text != "because" {
		t.Fatalf("read: %+v, %v", m, err)
	}
	if _, err := a.Read(); !errors.Is(err, io.EOF) {
		t.Fatalf("read: %v", err)
	}
}

func TestALengthIsNoClaimOnMemory(t *testing.T) {
	c, raw := rawPair(t, fdwire.Config{})
	var header [4]byte
	binary.BigEndian.PutUint32(header[:], fdwire.MaxFrameBytes)
	if _, err := unix.Write(raw, append(header[:], 0x81)); err != nil {
		t.Fatal(err)
	}
	unix.Shutdown(raw, unix.SHUT_WR)
	before := memory()
	if _, err := c.Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if after := memory(); after-before > fdwire.MaxFrameBytes/2 {
		t.Fatalf("a claim of 1 MiB cost %d bytes", after-before)
	}
}

func TestDecodeNamesTheUnknownField(t *testing.T) {
	p := packet(t, struct {
		Type  string `json:"type"`
		Extra int    `json:"extra"`
	}{"m", 1})
	var h fdwire.Header
	if err := fdwire.Decode(p[4:], &h); err != nil || h.Type != "m" {
		t.Fatalf("%+v, %v", h, err)
	}
	if err := fdwire.DecodeStrict(p[4:], &h); err == nil || !bytes.Contains([]byte(err.Error()), []byte("extra")) {
		t.Fatalf("error %v does not name the field", err)
	}
}

func TestEncodeRefusesWhatNobodyWouldAccept(t *testing.T) {
	if _, err := fdwire.Encode(message{Text: string(make([]byte, fdwire.MaxFrameBytes))}); !errors.Is(err, fdwire.ErrTooLong) {
		t.Fatal(err)
	}
}
