package dataplane_test

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/fdwire"
)

// FuzzServer sends arbitrary bytes, with a descriptor among them, to a live server
// after a sound hello. Whatever comes, the server answers the next client and has
// no descriptor more than before.
func FuzzServer(f *testing.F) {
	add := func(messages ...map[string]any) {
		var stream []byte
		for _, m := range messages {
			p, err := fdwire.Encode(m)
			if err != nil {
				f.Fatal(err)
			}
			stream = append(stream, p...)
		}
		f.Add(stream, true)
		f.Add(stream[:len(stream)-1], false)
	}
	add(map[string]any{"type": "map", "id": 1, "claim": "a", "mode": "rw"})
	add(map[string]any{"type": "unmap", "id": 1, "allocation_id": "a"}, map[string]any{"type": "ping", "id": 2})
	add(map[string]any{"type": "offer", "id": 1, "name": "f"})
	add(map[string]any{"type": "unmapped", "id": 1, "allocation_id": "a"}, map[string]any{"type": "map", "claim": "a"})
	f.Add([]byte{0, 0, 0, 5, 0xdf, 0xff, 0xff, 0xff, 0xff}, true)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, true)

	h := serve(f, func(c *dataplane.Config) { c.MaxConnections = 100 })
	h.grant(f, "a", 3, nil)
	f.Fuzz(func(t *testing.T, stream []byte, descriptor bool) {
		if len(stream) == 0 || len(stream) > 16<<10 {
			return
		}
		for h.server.Connections() > 0 { // of the run before
			runtime.Gosched()
		}
		before := openFDs(t)
		for len(h.heard) > 0 {
			<-h.heard
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: h.socket}); err != nil {
			t.Fatal(err)
		}
		hello, err := fdwire.Encode(map[string]any{"type": "hello", "id": 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, hello); err != nil {
			t.Fatal(err)
		}
		var rights []byte
		if descriptor {
			rights = unix.UnixRights(fd)
		}
		// It fails where the server has hung up already.
		_ = unix.Sendmsg(fd, stream, rights, nil, unix.MSG_NOSIGNAL)
		unix.Shutdown(fd, unix.SHUT_WR)
		// Read to the end: what the server sends, descriptors included, is let go of by
		// the kernel as nobody makes room for it.
		buf := make([]byte, 64<<10)
		for {
			if n, err := unix.Read(fd, buf); n <= 0 && err != unix.EINTR {
				break
			}
		}
		unix.Close(fd)

		nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: h.socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := fdwire.New(nc, fdwire.Config{})
		if err != nil {
			t.Fatal(err)
		}
		b := &bare{t, conn}
		b.say(map[string]any{"type": "hello", "id": 1})
		b.read("welcome")
		b.say(map[string]any{"type": "ping", "id": 2})
		b.read("pong")
		conn.Close()
		for h.server.Connections() > 0 {
			runtime.Gosched()
		}
		if now := openFDs(t); now != before {
			t.Fatalf("%d descriptors, %d before", now, before)
		}
	})
}
