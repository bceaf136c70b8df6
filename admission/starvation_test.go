package admission_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/admission"
)

// patient is one who waits, and what was given to others since he came.
type patient struct {
	own       int64 // bytes of his own tenant's
	others    map[string]int64
	overtaken int // by younger ones of his own tenant
}

// Nobody starves: whoever else comes, of whatever priority and size, while a request waits
// others are not given more than the bound of the package's documentation, and at most so
// many younger ones of its own tenant go before it.
func TestNobodyStarves(t *testing.T) {
	var histories, steps, waited int
	var worst float64
	rapid.Check(t, func(t *rapid.T) {
		histories++
		tenants := []string{"red", "green", "blue"}
		weights := map[string]float64{}
		largest := map[string]int64{}
		for _, name := range tenants {
			weights[name] = rapid.SampledFrom([]float64{.25, 1, 1, 2, 5}).Draw(t, "weight")
			largest[name] = rapid.SampledFrom([]int64{1, 4, 100}).Draw(t, "largest") << 20
		}
		line := admission.NewLine[int](func(tenant string) float64 { return weights[tenant] })
		patients := map[*spot]*patient{}
		age := uint64(0)
		come := func() {
			age++
			tenant := rapid.SampledFrom(tenants).Draw(t, "tenant")
			// Who comes later is often more urgent: so others are overtaken.
			s := &spot{Tenant: tenant, Age: age, Priority: int(age)*rapid.IntRange(0, 1).Draw(t, "urgent") + rapid.IntRange(0, 2).Draw(t, "priority"),
				Bytes: rapid.Int64Range(1, largest[tenant]).Draw(t, "bytes")}
			line.Add(s)
			patients[s] = &patient{others: map[string]int64{}}
		}
		for range rapid.IntRange(10, 300).Draw(t, "steps") {
			steps++
			for range rapid.IntRange(0, 2).Draw(t, "arrivals") {
				come()
			}
			s := line.Head()
			if s == nil {
				continue
			}
			if rapid.IntRange(0, 9).Draw(t, "gives up") == 0 {
				all := line.List()
				s = all[rapid.IntRange(0, len(all)-1).Draw(t, "who")]
				line.Remove(s)
				delete(patients, s)
				continue
			}
			p := patients[s]
			if len(p.others) > 0 || p.own > 0 {
				waited++
			}
			line.Serve(s)
			delete(patients, s)
			for o, p := range patients {
				if o.Tenant == s.Tenant {
					if p.own += s.Bytes; s.Age > o.Age {
						p.overtaken++
					}
				} else {
					p.others[s.Tenant] += s.Bytes
				}
				if p.overtaken > admission.Overtakings {
					t.Fatalf("request %d was overtaken by %d of its own tenant", o.Age, p.overtaken)
				}
				for u, given := range p.others {
					bound := weights[u]/weights[o.Tenant]*float64(p.own+largest[o.Tenant]) + float64(largest[u])
					if worst = max(worst, float64(given)/bound); float64(given) > bound*(1+1e-9) {
						t.Fatalf("while request %d of %s waits %s was given %d bytes, its own tenant %d: more than %v", o.Age, o.Tenant, u, given, p.own, bound)
					}
				}
			}
		}
	})
	t.Logf("%d histories of %d steps in all, %d requests waited for others; the worst came to %.2f of the bound", histories, steps, waited, worst)
}

// An endless stream of urgent requests of its own tenant keeps one waiting for so many of
// them, and no longer.
func TestUrgentOnesOvertakeSoOften(t *testing.T) {
	line := admission.NewLine[int](func(string) float64 { return 1 })
	lowly := &spot{Tenant: "red", Age: 1, Bytes: 1}
	line.Add(lowly)
	for age := uint64(2); ; age++ {
		line.Add(&spot{Tenant: "red", Age: age, Priority: int(age), Bytes: 1})
		s := line.Head()
		line.Serve(s)
		if s == lowly {
			if overtakers := age - 2; overtakers != admission.Overtakings {
				t.Fatalf("%d were served before it", overtakers)
			}
			return
		}
		if age > 10*admission.Overtakings {
			t.Fatal("it starves")
		}
	}
}
