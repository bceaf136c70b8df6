package fdwire_test

import (
	"fmt"
	"log"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/fdwire"
)

// A message that brings a file: the receiver reads what the sender wrote, without
// a copy and without a name in any file system.
func Example() {
	sender, receiver, err := fdwire.Pair(fdwire.Config{}, fdwire.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer sender.Close()
	defer receiver.Close()

	fd, err := unix.MemfdCreate("shared", unix.MFD_CLOEXEC)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, []byte("isobar"), 0); err != nil {
		log.Fatal(err)
	}
	packet, err := fdwire.Encode(fdwire.Header{Type: "take", ID: 1})
	if err != nil {
		log.Fatal(err)
	}
	if err := sender.Send(fdwire.Message{Packet: packet, FDs: []int{fd}}); err != nil {
		log.Fatal(err)
	}

	frame, err := receiver.Read()
	if err != nil {
		log.Fatal(err)
	}
	defer frame.Close()
	var h fdwire.Header
	if err := fdwire.DecodeStrict(frame.Body, &h); err != nil {
		log.Fatal(err)
	}
	file := frame.FDs.File(0, "shared")
	defer file.Close()
	text := make([]byte, 6)
	if _, err := file.ReadAt(text, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %d: %s\n", h.Type, h.ID, text)
	// Output: take 1: isobar
}
