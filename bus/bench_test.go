package bus_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/schemas"
)

var allocateRequest = []byte(`{"request_id":"8c4b8a52-53a4-4a0e-9a7e-1f0c7c1a3b5d","data":{"device_id":"ram-0","size_bytes":1048576,"purpose":"kv-cache","clear":false}}`)

// measure runs n requests with the given number in flight and returns every
// latency and the whole time.
func measure(b *testing.B, nc *nats.Conn, subject string, payload []byte, inFlight, n int) ([]time.Duration, cost) {
	used := processorTime(b)
	took := make([]time.Duration, n)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range inFlight {
		wg.Go(func() {
			for i := w; i < n; i += inFlight {
				at := time.Now()
				if _, err := nc.Request(subject, payload, 10*time.Second); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	return took, cost{time.Since(start), processorTime(b) - used}
}

// cost is what a number of requests took of the clock and of this process's
// processors: requester, server and responder together. The second hardly changes
// when the machine is shared with others.
type cost struct{ wall, processor time.Duration }

func (c *cost) add(d cost) { c.wall += d.wall; c.processor += d.processor }

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEcho compares the bus, whose desk grants at once, with a raw echo whose
// responder is a TCP client like the requester: same server, same payload,
// interleaved in one run, because the machine's speed changes by the second. The
// ratios are what to look at: p50/echo and processor/echo (lower is better), and
// rate/echo (higher).
func BenchmarkEcho(b *testing.B) {
	for _, undo := range []bool{false, true} {
		var undoing func()
		if undo {
			undoing = func() {}
		}
		n := startNode(b, desk(func(c *actors.Command) { c.Reply.Done(granted(), undoing) }), func(c *bus.ServiceConfig) { c.Events = discard{} })
		responder := plain(b, n.server.URL())
		if _, err := responder.Subscribe("raw.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
			b.Fatal(err)
		}
		if err := responder.Flush(); err != nil {
			b.Fatal(err)
		}
		nc := plain(b, n.server.URL())
		for _, inFlight := range []int{1, 64} {
			b.Run(fmt.Sprintf("undo=%t/inflight=%d", undo, inFlight), func(b *testing.B) {
				round := min(b.N, 100*inFlight)
				var raw, ours []time.Duration
				var rawCost, ourCost cost
				for done := 0; done < b.N; done += round {
					t, d := measure(b, nc, "raw.echo", allocateRequest, inFlight, round)
					raw = append(raw, t...)
					rawCost.add(d)
					t, d = measure(b, nc, "memory.allocate", allocateRequest, inFlight, round)
					ours = append(ours, t...)
					ourCost.add(d)
				}
				slices.Sort(raw)
				slices.Sort(ours)
				p50 := func(t []time.Duration) float64 { return float64(t[len(t)/2].Nanoseconds()) / 1e3 }
				b.ReportMetric(p50(ours), "p50-µs")
				b.ReportMetric(p50(raw), "echo-p50-µs")
				b.ReportMetric(p50(ours)/p50(raw), "p50/echo")
				b.ReportMetric(float64(len(ours))/ourCost.wall.Seconds(), "req/s")
				b.ReportMetric(float64(rawCost.wall)/float64(ourCost.wall), "rate/echo")
				b.ReportMetric(float64(ourCost.processor)/float64(rawCost.processor), "processor/echo")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

type discard struct{}

func (discard) Publish(schemas.Event) {}

// BenchmarkAllocate is the bus's half of BenchmarkEcho, for profiles.
func BenchmarkAllocate(b *testing.B) {
	n := startNode(b, desk(func(c *actors.Command) { c.Reply.Done(granted(), nil) }), func(c *bus.ServiceConfig) { c.Events = discard{} })
	nc := plain(b, n.server.URL())
	b.ReportAllocs()
	b.ResetTimer()
	measure(b, nc, "memory.allocate", allocateRequest, 64, b.N)
}

// BenchmarkPressure is the time from Publish to a plain subscriber, while 16
// clients load the same server with allocate and the outbox with its events.
func BenchmarkPressure(b *testing.B) {
	server := bus.ServerConfig{Listen: "127.0.0.1:0", StoreDir: b.TempDir()}
	u, err := bus.Open(bus.Config{Server: &server, Node: "here", Version: "1.0.0"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { u.Close(time.Second) })
	if err := u.Serve(desk(func(c *actors.Command) {
		u.Publisher().Publish(item(schemas.EventAllocated, c.RequestID))
		c.Reply.Done(granted(), func() {})
	})); err != nil {
		b.Fatal(err)
	}
	received := make(chan time.Time, 1)
	third := plain(b, u.URL())
	if _, err := third.Subscribe("memory.events.pressure.>", func(*nats.Msg) { received <- time.Now() }); err != nil {
		b.Fatal(err)
	}
	if err := third.Flush(); err != nil {
		b.Fatal(err)
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 16 {
		nc := plain(b, u.URL())
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := nc.Request("memory.allocate", allocateRequest, 10*time.Second); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		at := time.Now()
		u.Publisher().Publish(pressureEvent("ram-0", i+1))
		took = append(took, (<-received).Sub(at))
	}
	b.StopTimer()
	close(stop)
	load.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
	b.ReportMetric(0, "ns/op")
}
