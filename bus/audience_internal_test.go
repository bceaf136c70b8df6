package bus

import (
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

// Of a model that is another's a tenant hears only while it reads it, and of no other
// reader and no other's request; of a transfer only whose it is.
func TestWhatATenantHears(t *testing.T) {
	model := &schemas.ModelEvent{Name: "m", Tenant: "red", RequestID: "theirs", Readers: 3, ReadersOf: map[string]int{"red": 1, "blue": 2}}
	for tenant, want := range map[string]schemas.ModelEvent{"red": *model, "blue": {Name: "m", Tenant: "red", Readers: 2}} {
		e, hears := view(schemas.Event{Subject: "memory.events.model.n.d", Data: model}, tenant)
		got, ok := e.Data.(*schemas.ModelEvent)
		if !hears || !ok || got.Readers != want.Readers || got.RequestID != want.RequestID || got.Name != "m" || e.Subject != "isobar."+tenant+".memory.events.model.n.d" {
			t.Errorf("%s hears %v of %+v on %s", tenant, hears, e.Data, e.Subject)
		}
	}
	if e, hears := view(schemas.Event{Data: model}, "green"); hears {
		t.Errorf("green hears %+v", e.Data)
	}
	for tenant, want := range map[string]bool{"red": true, "blue": false} {
		if _, hears := view(schemas.Event{Tenant: "red", Data: &schemas.Operation{}}, tenant); hears != want {
			t.Errorf("%s hears of red's transfer: %v", tenant, hears)
		}
	}
}
