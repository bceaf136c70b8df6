package seam_test

import (
	"context"
	"fmt"

	"github.com/isobar-project/isobar/actors/seam"
)

// counter is an actor's state: plain fields, no lock.
type counter struct{ granted int }

type grant struct{ bytes int }
type ask struct{ answer chan<- int } // buffered: a receiver must not block

func (c *counter) Receive(msg any) {
	switch m := msg.(type) {
	case grant:
		c.granted += m.bytes
	case ask:
		m.answer <- c.granted
	}
}

func Example() {
	system := seam.NewSystem(nil)
	ref := system.Spawn(seam.Config{Name: "device/ram-0", Stateful: true}, &counter{})

	for range 3 {
		if err := ref.Tell(seam.GrantLane, grant{bytes: 1 << 20}); err != nil {
			fmt.Println("refused:", err) // seam.ErrBusy: the client hears BUSY
		}
	}
	answer := make(chan int, 1)
	if err := ref.Tell(seam.QueryLane, ask{answer}); err != nil {
		fmt.Println("refused:", err)
	}
	fmt.Println(<-answer, "bytes granted")

	if err := system.Shutdown(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println(ref.Tell(seam.GrantLane, grant{}))
	// Output:
	// 3145728 bytes granted
	// actor stopped
}
