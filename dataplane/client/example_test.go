package client_test

import (
	"context"
	"fmt"
	"log"

	"github.com/isobar-project/isobar/dataplane/client"
)

// Map a grant with the socket and the claim of the handle that the node's reply
// carries, and give it back when the node asks.
func Example() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Config{
		SocketPath: "/run/isobar/data.sock",
		Name:       "my-service",
		OnRevoke: func(r client.Revocation) {
			fmt.Printf("giving back %s within %s: %s\n", r.AllocationID, r.Deadline, r.Reason)
			// Stop using the grant's bytes before returning.
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	m, err := c.Map(ctx, "the claim", client.ReadOnly)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(m.Tensor("model.embed_tokens.weight")))
}
