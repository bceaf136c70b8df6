package node_test

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/node/nodetest"
)

// BenchmarkPair is an allocate and a deallocate of 1 MiB from the warm pool through a whole
// node in this process, requester included; for profiles of time and of allocations.
func BenchmarkPair(b *testing.B) {
	pair := pairs(b)
	b.ReportAllocs()
	for b.Loop() {
		pair()
	}
}

// BenchmarkPairs is the same with 64 in flight; cpu-ns/op is the processor time of all of the
// process, which the machine's other load changes less than the time that passes.
func BenchmarkPairs(b *testing.B) {
	const inFlight = 64
	pair := pairs(b)
	var warm sync.WaitGroup
	for range inFlight { // the pool comes to have one for each
		warm.Go(func() {
			for range 20 {
				pair()
			}
		})
	}
	warm.Wait()
	b.ReportAllocs()
	b.SetParallelism(inFlight / runtime.GOMAXPROCS(0))
	b.ResetTimer()
	begun := used(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			pair()
		}
	})
	b.ReportMetric(float64(used(b)-begun)/float64(b.N), "cpu-ns/op")
}

// pairs starts a node; the function returned allocates on it and deallocates.
func pairs(b *testing.B) func() {
	n := nodetest.Start(b, nodetest.Devices("ram:ram-0=2GiB"))
	nc, err := nats.Connect(n.Info().URL)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	ask := func(subject, payload string) []byte {
		m, err := nc.Request(subject, []byte(payload), 10*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		return m.Data
	}
	return func() {
		answer := ask("memory.allocate", `{"data":{"size_bytes":1048576}}`)
		_, rest, _ := bytes.Cut(answer, []byte(`"allocation_id":"`))
		id, _, ok := bytes.Cut(rest, []byte(`"`))
		if !ok {
			b.Fatalf("not granted: %s", answer)
		}
		ask("memory.deallocate", `{"data":{"allocation_id":"`+string(id)+`"}}`)
	}
}

// used is the processor time of this process.
func used(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
