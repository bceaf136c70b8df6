package dataplane_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

// oneGrant is a Desk that gives the same memory to whoever knows the claim.
type oneGrant struct{ memory *os.File }

func (oneGrant) Hello(peer fdwire.Peer, _ dataplane.Hello, _ dataplane.Conn, done func(dataplane.Welcome, error)) {
	peer.Close() // a real desk watches the pidfd
	done(dataplane.Welcome{SessionID: "s1", ResumeToken: "secret", Node: "host"}, nil)
}

func (d oneGrant) Map(_, _ string, _ dataplane.Mode, done func(*dataplane.Mapping, error)) {
	// A description of its own for each session, so that the kernel can tell when
	// nobody has it mapped any more.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", d.memory.Fd()), os.O_RDWR, 0)
	if err != nil {
		done(nil, err)
		return
	}
	done(&dataplane.Mapping{
		AllocationID: "a1", Kind: "memfd", SizeBytes: 4096,
		Segments: []dataplane.Segment{{File: f, SegmentBytes: 4096, SizeBytes: 4096}},
	}, nil)
}

func (oneGrant) Unmap(_, _ string, done func(error)) { done(nil) }

// Offer takes no files.
func (oneGrant) Offer(_, _ string, file *os.File, done func(string, error)) {
	file.Close()
	done("", schemas.Errorf(schemas.CodeFileNotReadable, "no files here"))
}

func (oneGrant) Ended(string, dataplane.Conn) {}

// A server with one grant, and a client that writes to it: the bytes are the
// server's own.
func Example() {
	fd, err := unix.MemfdCreate("grant", unix.MFD_CLOEXEC)
	if err != nil {
		log.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "grant")
	defer memory.Close()
	if err := memory.Truncate(4096); err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "isobar")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "data.sock")
	server, err := dataplane.Listen(dataplane.Config{SocketPath: socket, Desk: oneGrant{memory}})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	ctx := context.Background()
	c, err := client.Dial(ctx, client.Config{SocketPath: socket, Name: "example", Version: "1"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	m, err := c.Map(ctx, "claim from a reply over NATS", client.ReadWrite)
	if err != nil {
		log.Fatal(err)
	}
	copy(m.Segments[0].Bytes, "written by the client")

	text := make([]byte, 21)
	if _, err := memory.ReadAt(text, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
	if err := c.Unmap(ctx, m); err != nil {
		log.Fatal(err)
	}
	// Output: written by the client
}
