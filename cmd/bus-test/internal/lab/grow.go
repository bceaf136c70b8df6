package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// chunk is how much the foreign process takes between two looks at the clock.
const chunk = 8 << 20

// grown is what the foreign process says of itself.
type grown struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// Grow is the foreign process: it takes bytes of private memory at so many bytes a second, as
// long as the machine keeps up, reports, and holds them until its input ends.
func Grow(bytes, rate int64, in io.Reader, out io.Writer) error {
	mem, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("reserve %d bytes of addresses: %w", bytes, err)
	}
	defer unix.Munmap(mem)
	// A kernel that gives no huge pages gives small ones, and the growth is slower.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	begun := time.Now()
	for at := int64(0); at < bytes; at += chunk {
		if early := time.Duration(float64(at)/float64(rate)*1e9) - time.Since(begun); early > 0 {
			timer := time.NewTimer(early)
			<-timer.C
		}
		for i := at; i < min(bytes, at+chunk); i += 4096 {
			mem[i] = 1
		}
	}
	if err := json.NewEncoder(out).Encode(grown{Bytes: bytes, Seconds: time.Since(begun).Seconds()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}
