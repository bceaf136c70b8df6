// Package grants measures what one grant of a device costs beside a raw echo over the same
// NATS server: the figure of a device whose grants are large and few, where package bench
// asks how many small ones there can be. The node is somebody else's and must be idle.
//
// Echoes and grants are taken in turn, a few at a time, by one client on one connection, so
// that noise of the machine hits both alike. Each grant is given back before the next one, and
// the giving back is not measured. A refusal ends the measurement with an error.
package grants

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
	"github.com/isobar-project/isobar/schemas"
)

// Options say what to measure.
type Options struct {
	// NATSURL is the server of the node.
	NATSURL string
	// Device is where to allocate.
	Device string
	// SizeBytes is what each grant has.
	SizeBytes int64
	// Count is how many grants, and how many echoes.
	Count int
}

// Report is what was found.
type Report struct {
	Echo       measure.Summary `json:"echo"`
	Allocate   measure.Summary `json:"allocate"`
	Deallocate measure.Summary `json:"deallocate"`
}

const (
	// turn is how many of a kind follow one another.
	turn    = 20
	timeout = 20 * time.Second
)

// Run measures.
func Run(ctx context.Context, o Options) (*Report, error) {
	nc, err := nats.Connect(o.NATSURL, nats.Name("bus-test"))
	if err != nil {
		return nil, fmt.Errorf("NATS server %s: %w", o.NATSURL, err)
	}
	defer nc.Close()
	responder, err := nats.Connect(o.NATSURL, nats.Name("bus-test echo"))
	if err != nil {
		return nil, err
	}
	defer responder.Close()
	subject := nats.NewInbox()
	if _, err := responder.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return nil, err
	}
	if err := responder.Flush(); err != nil {
		return nil, err
	}
	allocate, err := json.Marshal(map[string]any{"data": schemas.AllocateRequest{DeviceID: o.Device, SizeBytes: o.SizeBytes, Purpose: "kv-cache"}})
	if err != nil {
		return nil, err
	}
	var echoes, grants, returns measure.Durations
	echo := func() error {
		_, err := ask(ctx, nc, subject, allocate, &echoes)
		return err
	}
	grant := func() error { return pair(ctx, nc, allocate, &grants, &returns) }
	for n := -turn; n < o.Count; n += turn { // the first turn warms up
		for range turn {
			if err := echo(); err != nil {
				return nil, err
			}
		}
		for range turn {
			if err := grant(); err != nil {
				return nil, err
			}
		}
		if n < 0 {
			echoes, grants, returns = nil, nil, nil
		}
	}
	return &Report{Echo: echoes.Summary(0), Allocate: grants.Summary(0), Deallocate: returns.Summary(0)}, nil
}

// pair allocates and gives back.
func pair(ctx context.Context, nc *nats.Conn, request []byte, grants, returns *measure.Durations) error {
	answer, err := ask(ctx, nc, schemas.CommandSubject(schemas.ActionAllocate), request, grants)
	if err != nil {
		return err
	}
	var got struct {
		Success bool                  `json:"success"`
		Data    schemas.AllocateReply `json:"data"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return err
	}
	if !got.Success || got.Data.AllocationID == "" {
		return fmt.Errorf("no grant: %.500s", answer)
	}
	request, err = json.Marshal(map[string]any{"data": schemas.DeallocateRequest{AllocationID: got.Data.AllocationID}})
	if err != nil {
		return err
	}
	_, err = ask(ctx, nc, schemas.CommandSubject(schemas.ActionDeallocate), request, returns)
	return err
}

// ask times one request.
func ask(ctx context.Context, nc *nats.Conn, subject string, payload []byte, took *measure.Durations) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	at := time.Now()
	m, err := nc.Request(subject, payload, timeout)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	*took = append(*took, time.Since(at))
	return m.Data, nil
}
