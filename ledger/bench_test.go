package ledger_test

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

func benchDevice(b testing.TB) *ledger.Device {
	region, err := store.Format(make([]byte, 64<<20), "device/ram-0")
	if err != nil {
		b.Fatal(err)
	}
	return ledger.NewDevice(ledger.DeviceConfig{
		Device: "ram-0", Type: "RAM", Physical: 1 << 40, PoolBytes: 1 << 40,
		Heap: heap.Config{}, Rand: func(p []byte) { rand.Read(p) }, NewID: uuid.New,
	}, region)
}

// grantOne allocates and, where it must, does the workers' part.
func grantOne(d *ledger.Device, r *ledger.Request, now ledger.Now) *ledger.Grant {
	t := d.Allocate(r, now)
	e := d.Take()
	for _, j := range e.Jobs {
		if j.Ticket == t {
			d.Prepared(t, j.Kind, nil, false, now)
			e = d.Take()
			break
		}
	}
	for _, o := range e.Outcomes {
		if o.Kind == ledger.OutcomeGranted {
			return o.Grant
		}
	}
	return nil
}

// BenchmarkPooledGrant is allocate and deallocate of 1 MiB from the warm pool, beside a
// number of grants that live.
func BenchmarkPooledGrant(b *testing.B) {
	for _, live := range []int{0, 1000, 10000} {
		b.Run(fmt.Sprint(live), func(b *testing.B) {
			d := benchDevice(b)
			now := ledger.Now{Boot: 1}
			for range live {
				if grantOne(d, &ledger.Request{Ref: 1, Owner: ledger.Owner{Tenant: "t"}, Class: ledger.ClassScratch, Size: 1 << 20}, now) == nil {
					b.Fatal("not granted")
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				now.Boot += 1000
				g := grantOne(d, &ledger.Request{Ref: 1, Owner: ledger.Owner{Tenant: "t"}, Class: ledger.ClassScratch, Size: 1 << 20}, now)
				if g == nil {
					b.Fatal("not granted")
				}
				d.Release(ledger.ReleaseRequest{Ref: 1, Grant: g.ID, Tenant: "t", Why: ledger.WhyDeallocated}, now)
			}
		})
	}
}

// BenchmarkSessionDead is the end of a session with one grant beside many of others.
func BenchmarkSessionDead(b *testing.B) {
	d := benchDevice(b)
	now := ledger.Now{Boot: clock.Instant(1)}
	for range 10000 {
		grantOne(d, &ledger.Request{Ref: 1, Owner: ledger.Owner{Tenant: "t"}, Class: ledger.ClassScratch, Size: 1 << 20}, now)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s := ledger.SessionID(fmt.Sprint("s", i))
		grantOne(d, &ledger.Request{Ref: 1, Owner: ledger.Owner{Tenant: "t", Session: s}, Class: ledger.ClassScratch, Size: 1 << 20}, now)
		d.SessionDead(s, now)
	}
}
