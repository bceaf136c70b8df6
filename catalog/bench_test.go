package catalog_test

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// shelf is a catalog with 10,000 models of three tenants on one device.
type shelf struct {
	*catalog.Catalog
	now    ledger.Now
	all    int64
	of     map[string]int64
	grants []uuid.UUID
}

func fill(b *testing.B) *shelf {
	const models = 10_000
	region, err := store.Format(make([]byte, 64<<20), "pool")
	if err != nil {
		b.Fatal(err)
	}
	s := &shelf{Catalog: catalog.New(region, policy(b), uuid.New), of: map[string]int64{},
		now: ledger.Now{Boot: clock.Instant(time.Hour), Wall: time.Unix(1000, 0)}}
	random := rand.New(rand.NewSource(1))
	for i := range models {
		name, bytes, tenant := fmt.Sprintf("model-%d", i), 1e8+random.Int63n(7e9), []string{"red", "green", "blue"}[random.Intn(3)]
		var cp *catalog.Copy
		step := func() {
			for _, x := range s.Take().Steps {
				cp = x.Copy
			}
		}
		s.Load(catalog.LoadRequest{Ref: name, Tenant: tenant, Name: name, Path: name, Device: "gpu-0"}, s.now)
		step()
		s.Inspected(cp, nil, catalog.Description{Path: name, ContentID: name, Bytes: bytes, Segments: []int64{bytes}}, nil, s.now)
		step()
		s.grants = append(s.grants, uuid.New())
		s.Granted(cp, s.grants[i], bytes, nil, 0, s.now)
		step()
		s.now.Boot = s.now.Boot.Add(time.Duration(random.Int63n(int64(time.Second))))
		s.Filled(cp, nil, s.now)
		step()
		s.SealDone(cp, nil, s.now)
		s.Take()
		s.all += bytes
		s.of[tenant] += bytes
	}
	return s
}

// floors are quotas by which each tenant but red may lose that part of what it has.
func (s *shelf) floors(part float64) (quotas []ledger.TenantFigures) {
	for _, tenant := range []string{"red", "green", "blue"} {
		used := s.of[tenant]
		quotas = append(quotas, ledger.TenantFigures{Quota: ledger.Quota{Tenant: tenant, Floor: used - int64(part*float64(used)), Weight: 1}, Used: used})
	}
	return quotas
}

// BenchmarkPlan is every kind of plan among 10,000 models of a device, with everything that the catalog
// knows of them: room for one of them, for 5 % of all bytes, and for all.
func BenchmarkPlan(b *testing.B) {
	s := fill(b)
	names, grants := map[string]bool{}, map[uuid.UUID]bool{}
	for i := range 500 {
		names[fmt.Sprintf("model-%d", 2*i)], grants[s.grants[2*i+1]] = true, true
	}
	one, part := int64(1e9), s.all/20
	for _, kind := range []struct {
		name string
		want catalog.Want
	}{
		{"one/plain", catalog.Want{Bytes: one}},
		{"5%/plain", catalog.Want{Bytes: part}},
		{"all/plain", catalog.Want{Bytes: s.all}},
		{"one/names", catalog.Want{Bytes: one, Names: names}},
		{"5%/names", catalog.Want{Bytes: part, Names: names}},
		{"5%/grants", catalog.Want{Bytes: part, Grants: grants}},
		{"5%/one tenant's", catalog.Want{Bytes: part, Tenant: "red"}},
		{"5%/by lru", catalog.Want{Bytes: part, Strategy: "lru"}},
		{"5%/last victim, for a newcomer", catalog.Want{Bytes: part, LastVictim: s.grants[7], For: &catalog.Newcomer{Model: "model-9"}, Whose: "red"}},
		{"one/quotas", catalog.Want{Bytes: one, Whose: "red", Quotas: s.floors(1)}},
		{"one/floors", catalog.Want{Bytes: one, Whose: "red", Quotas: s.floors(.5)}},
		{"5%/floors", catalog.Want{Bytes: part, Whose: "red", Quotas: s.floors(.5)}},
		{"5%/floors of nearly all", catalog.Want{Bytes: part, Whose: "red", Quotas: s.floors(.01)}},
		{"5%/most 10", catalog.Want{Bytes: part, MaxVictims: 10}},
		{"5%/most 300", catalog.Want{Bytes: part, MaxVictims: 300}},
		{"5%/everything", catalog.Want{Bytes: part, MaxVictims: 300, Whose: "red", Quotas: s.floors(.3), Names: names, Grants: grants, Force: true,
			LastVictim: s.grants[7], For: &catalog.Newcomer{Model: "model-9"}, Strategy: "gdsf"}},
	} {
		w := kind.want
		w.Device = "gpu-0"
		b.Run(kind.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if plan, _ := s.Plan(w, s.now.Boot); plan.Shortfall > 0 && w.MaxVictims != 10 || len(plan.Victims) == 0 {
					b.Fatalf("%d victims, short of %d", len(plan.Victims), plan.Shortfall)
				}
			}
		})
	}
}

// BenchmarkFind looks for a model that only another tenant has, and for one that nobody has.
func BenchmarkFind(b *testing.B) {
	s := fill(b)
	for _, name := range []string{"model-9", "no such model"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Find("yellow", name); err == nil {
					b.Fatal("found")
				}
			}
		})
	}
}

// BenchmarkReclaimable is what a device hears of with every change.
func BenchmarkReclaimable(b *testing.B) {
	s := fill(b)
	quotas := s.floors(1)
	b.ReportAllocs()
	for b.Loop() {
		if s.Reclaimable("gpu-0") != s.all || len(s.ReclaimableOf("gpu-0", quotas)) != 3 {
			b.Fatal("not all")
		}
	}
}
