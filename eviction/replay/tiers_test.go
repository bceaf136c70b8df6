package replay

import (
	"testing"

	"github.com/isobar-project/isobar/eviction"
)

var schemes = []Scheme{Apart, Exclusive, Together, Node}

// Where both tiers together hold everything, only first loads come from disk; what does
// not fit the device goes over the bus again and again.
func TestTiersThatHoldEverythingReadNothingTwice(t *testing.T) {
	trace := Synthetic(2, 3000)
	b := trace.Bounds[0]
	var total int64
	for _, o := range trace.objects(b) {
		total += o.Bytes
	}
	for _, scheme := range schemes {
		r, err := trace.RunTiers(b, Tiers{Device: total / 5, Main: total, BytesPerSecond: 50e9}, eviction.DefaultName, scheme)
		if err != nil {
			t.Fatal(err)
		}
		if r.Disk != r.First || r.First <= 0 || r.Seconds <= r.Disk {
			t.Errorf("%s: %+v", scheme, r)
		}
	}
}

// Without main memory there is one tier, and the schemes do the same.
func TestADeviceWithoutMainMemoryIsOneTier(t *testing.T) {
	trace := Synthetic(2, 3000)
	b := trace.Bounds[1]
	p, err := eviction.New("gdsf")
	if err != nil {
		t.Fatal(err)
	}
	want, err := trace.Run(b, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []Scheme{Apart, Exclusive} {
		r, err := trace.RunTiers(b, Tiers{Device: b.Capacity, BytesPerSecond: 50e9}, "gdsf", scheme)
		if err != nil {
			t.Fatal(err)
		}
		if diff := r.Disk - want.Seconds; diff > 1e-6 || diff < -1e-6 {
			t.Errorf("%s: %.3f s from disk, one tier takes %.3f", scheme, r.Disk, want.Seconds)
		}
	}
}

func TestTiersTogetherBeatTiersApart(t *testing.T) {
	trace, _ := published(t)
	one := &Trace{Requests: trace.Requests, Models: trace.Models, Assignments: trace.Assignments[:1], Bounds: trace.Bounds}
	apart, err := one.ScoreTiers(TierCell{"gdsf", Apart, Measured})
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []Scheme{Together, Node} {
		r, err := one.ScoreTiers(TierCell{eviction.DefaultName, scheme, Measured})
		if err != nil {
			t.Fatal(err)
		}
		if r.Seconds > .9*apart.Seconds || r.First != apart.First {
			t.Errorf("%s %+v, apart %+v", scheme, r, apart)
		}
	}
}
