package contract

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node/nodetest"
)

// ask is one command of a history: bytes wanted, or given back where negative.
type ask struct{ bytes int64 }

// capacity is the sequential device that concurrent histories are compared with: it knows
// how much is used. A grant needs room; a refusal needs that there was none.
func capacity(limit int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return int64(0) },
		Step: func(state, input, output any) (bool, any) {
			used, bytes, granted := state.(int64), input.(ask).bytes, output.(bool)
			switch {
			case bytes < 0:
				return granted, used + bytes
			case granted:
				return used+bytes <= limit, used + bytes
			}
			return used+bytes > limit, used
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%d MiB: %v", input.(ask).bytes/mib, output) },
	}
}

// TestCapacityModel: the model can tell a wrong history.
func TestCapacityModel(t *testing.T) {
	op := func(client int, bytes int64, granted bool, call, ret int64) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: ask{bytes}, Output: granted, Call: call, Return: ret}
	}
	for name, h := range map[string][]porcupine.Operation{
		"too much":                {op(0, 40, true, 1, 2), op(1, 40, true, 3, 4)},
		"refused with room":       {op(0, 40, true, 1, 2), op(1, 20, false, 3, 4)},
		"refused after a release": {op(0, 60, true, 1, 2), op(0, -60, true, 3, 4), op(1, 60, false, 5, 6)},
	} {
		if porcupine.CheckOperations(capacity(64), h) {
			t.Errorf("%s: accepted", name)
		}
	}
	if !porcupine.CheckOperations(capacity(64), []porcupine.Operation{op(0, 40, true, 1, 4), op(1, 40, false, 2, 3)}) {
		t.Error("a sound history is not accepted")
	}
}

// TestHistoriesAreLinearizable: ten clients at once ask one device for whole segments and
// give them back. Whatever they see, some order of their commands explains it on a device
// that grants only what it has and refuses only what it has not.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	const limit, clients, steps = 256 * mib, 10, 40
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			c := start(t, f, nodetest.Devices("sim:gpu-0=256MiB"))
			var mu sync.Mutex
			var history []porcupine.Operation
			var wg sync.WaitGroup
			begun := time.Now()
			for i := range clients {
				wg.Go(func() {
					one := *c
					one.nc = connect(t, c.n.Info().URL)
					r := rand.New(rand.NewPCG(1, uint64(i)))
					record := func(bytes int64, do func() bool) bool {
						call := time.Since(begun)
						ok := do()
						op := porcupine.Operation{ClientId: i, Input: ask{bytes}, Output: ok, Call: int64(call), Return: int64(time.Since(begun))}
						mu.Lock()
						history = append(history, op)
						mu.Unlock()
						return ok
					}
					held := map[string]int64{}
					give := func(id string) {
						record(-held[id], func() bool { return one.ask("deallocate", obj{"allocation_id": id, "wait_ms": 15_000}).ok })
						delete(held, id)
					}
					for range steps {
						if len(held) > 0 && r.IntN(2) == 0 {
							for id := range held {
								give(id)
								break
							}
							continue
						}
						bytes := []int64{16, 20, 32, 64, 100}[r.IntN(5)] * mib
						record(bytes, func() bool {
							a := one.ask("allocate", obj{"device_id": "gpu-0", "size_bytes": bytes, "timeout_seconds": 0, "wait_ms": 15_000})
							if a.ok {
								held[text(a.data, "allocation_id")] = bytes
							} else if a.code != "OUT_OF_MEMORY" {
								t.Errorf("refused with %s %s", a.code, a.text)
							}
							return a.ok
						})
					}
					for id := range held {
						give(id)
					}
				})
			}
			wg.Wait()
			refused := 0
			for _, op := range history {
				if op.Output == false {
					refused++
				}
			}
			t.Logf("%d commands, %d refused", len(history), refused)
			if refused == 0 || refused > len(history)*3/4 {
				t.Error("the history says little")
			}
			if r := porcupine.CheckOperationsTimeout(capacity(limit), history, 30*time.Second); r != porcupine.Ok {
				t.Errorf("no order of these commands explains their answers: %v", r)
			}
			c.want(c.memory(), "used_memory", 0, "available_memory", limit)
		})
	}
}

// TestGrantsNeverOverlap: eight clients write what only they know into every word of what
// they are granted, blocks of all sizes in shared segments of real memory, and find it
// there as long as they hold it.
func TestGrantsNeverOverlap(t *testing.T) {
	t.Parallel()
	c := start(t, formats[1], nodetest.Devices("ram:gpu-0=96MiB"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			one := *c
			one.nc = connect(t, c.n.Info().URL)
			d := one.session(nil)
			r := rand.New(rand.NewPCG(2, uint64(i)))
			type hold struct {
				id   string
				m    *data.Mapping
				mark uint64
			}
			var held []hold
			each := func(h hold, f func(b []byte, want uint64)) {
				for s, seg := range h.m.Segments {
					for off := 0; off+8 <= len(seg.Bytes); off += 512 { // in every sector
						f(seg.Bytes[off:], h.mark^uint64(s)<<48^uint64(off))
					}
				}
			}
			for step := range 40 {
				if len(held) > 3 || len(held) > 0 && r.IntN(3) == 0 {
					k := r.IntN(len(held))
					h := held[k]
					held = append(held[:k], held[k+1:]...)
					each(h, func(b []byte, want uint64) {
						if got := binary.LittleEndian.Uint64(b); got != want {
							t.Errorf("client %d: %x is where %x was written", i, got, want)
						}
					})
					one.unmaps(d, h.m)
					one.do("deallocate", obj{"allocation_id": h.id, "wait_ms": 15_000})
					continue
				}
				a := one.ask("allocate", obj{"device_id": "gpu-0", "size_bytes": 4096 + r.Int64N(5*mib), "timeout_seconds": 0, "session_id": d.Session().ID, "wait_ms": 15_000})
				if !a.ok {
					continue // full: as the other histories show, rightly so
				}
				h := hold{text(a.data, "allocation_id"), one.maps(d, a.data["handle"], data.ReadWrite), uint64(i)<<60 | uint64(step)<<52 | r.Uint64()>>16}
				each(h, func(b []byte, want uint64) { binary.LittleEndian.PutUint64(b, want) })
				held = append(held, h)
			}
		})
	}
	wg.Wait()
}
