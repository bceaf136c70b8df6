package node_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/node/nodetest"
)

// BenchmarkPair is an allocate and a deallocate of 1 MiB from the warm pool through a whole
// node in this process, requester included; for profiles of time and of allocations.
func BenchmarkPair(b *testing.B) {
	n := nodetest.Start(b, nodetest.Devices("ram:ram-0=256MiB"))
	nc, err := nats.Connect(n.Info().URL)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	ask := func(subject, payload string) []byte {
		m, err := nc.Request(subject, []byte(payload), 10*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		return m.Data
	}
	b.ReportAllocs()
	for b.Loop() {
		answer := ask("memory.allocate", `{"data":{"size_bytes":1048576}}`)
		_, rest, _ := bytes.Cut(answer, []byte(`"allocation_id":"`))
		id, _, ok := bytes.Cut(rest, []byte(`"`))
		if !ok {
			b.Fatalf("not granted: %s", answer)
		}
		ask("memory.deallocate", `{"data":{"allocation_id":"`+string(id)+`"}}`)
	}
}
