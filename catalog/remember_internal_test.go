package catalog

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// Of the models that were unloaded, those used last stay known, and no more than may be:
// neither names nor records pile up.
func TestUnloadedModelsAreForgottenByAge(t *testing.T) {
	policy, err := eviction.New("")
	if err != nil {
		t.Fatal(err)
	}
	mem := make([]byte, 1<<20)
	region, err := store.Format(mem, "pool")
	if err != nil {
		t.Fatal(err)
	}
	c := New(region, policy, uuid.New)
	c.remembered = 8
	now := ledger.Now{Boot: clock.Instant(time.Hour), Wall: time.Unix(1000, 0)}
	for i := range 50 {
		name := fmt.Sprint("m", i)
		now.Wall = now.Wall.Add(time.Second)
		c.Load(LoadRequest{Ref: name, Tenant: "red", Name: name, Path: "/" + name, Device: "ram-0"}, now)
		steps := c.Take().Steps
		cp := steps[len(steps)-1].Copy
		c.Inspected(cp, nil, Description{Path: "/" + name, ContentID: name, Bytes: 1, Segments: []int64{1}}, nil, now)
		c.Granted(cp, uuid.UUID{byte(i), 1}, 4096, nil, 0, now)
		c.Filled(cp, nil, now)
		c.SealDone(cp, nil, now)
		if i == 3 {
			continue // it stays loaded, whatever its age
		}
		c.Unload(UnloadRequest{Ref: name, Tenant: "red", Name: name}, now)
		c.Released(cp.Grant, 4096, 0, true, now)
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Find("red", name); err != nil {
			t.Fatal(err)
		}
		if len(c.all) > 9 {
			t.Fatalf("%d models are known", len(c.all))
		}
	}
	for name, known := range map[string]bool{"m49": true, "m43": true, "m3": true, "m40": false, "m0": false} {
		if _, err := c.Find("red", name); (err == nil) != known {
			t.Errorf("%s is known: %v", name, err == nil)
		}
	}
}
