package vault_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/vault"
)

// A node puts memory into the vault and goes; the next one finds it unchanged. Here
// the vault runs in the same process; in production Spawn starts it.
func Example() {
	dir, err := os.MkdirTemp("", "vault")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "vault.sock")
	listener, err := vault.Listen(socket)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- vault.Serve(ctx, vault.Config{Listener: listener}) }()

	node, _, err := vault.Connect(ctx, vault.ClientConfig{SocketPath: socket})
	if err != nil {
		log.Fatal(err)
	}
	fd, err := unix.MemfdCreate("segment", unix.MFD_CLOEXEC)
	if err != nil {
		log.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "segment")
	if _, err := memory.WriteString("weights"); err != nil {
		log.Fatal(err)
	}
	if err := node.Put(vault.Entry{ID: 256, Label: "ram-0", File: memory}); err != nil {
		log.Fatal(err)
	}
	memory.Close()
	if err := node.Close(true); err != nil {
		log.Fatal(err)
	}

	next, entries, err := vault.Connect(ctx, vault.ClientConfig{SocketPath: socket})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		text := make([]byte, 7)
		if _, err := e.File.ReadAt(text, 0); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s: %s\n", e.ID, e.Label, text)
		e.File.Close()
	}
	if err := next.Close(true); err != nil {
		log.Fatal(err)
	}
	stop()
	if err := <-served; err != nil {
		log.Fatal(err)
	}
	// Output: 256 ram-0: weights
}
