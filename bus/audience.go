package bus

import "github.com/isobar-project/isobar/schemas"

// view is an event as a tenant may see it; false where it is not for the tenant. What is
// somebody's own reaches that tenant alone, what concerns a device or the node reaches
// all, without what it says of others.
func view(e schemas.Event, tenant string) (schemas.Event, bool) {
	if data, ok := e.Data.(*schemas.AllocationBatch); ok && !concerns(data.Items, tenant) {
		return e, false // most grants, and quickly: it is asked of each for every tenant
	}
	e.Subject = schemas.TenantSubject(tenant, e.Subject)
	switch data := e.Data.(type) {
	case *schemas.Pressure:
		if data.Tenant != "" {
			return e, data.Tenant == tenant
		}
		p := *data
		p.TopHolders, p.TriggerRequestID = []schemas.Holder{}, ""
		e.Data = &p
		return e, true
	case *schemas.AllocationBatch:
		b := &schemas.AllocationBatch{}
		for i := range data.Items {
			if data.Items[i].Tenant == tenant {
				b.Items = append(b.Items, data.Items[i])
			}
		}
		e.Data = b
		return e, true
	case *schemas.ModelEvent:
		if data.Tenant == tenant {
			return e, true
		}
		// Another's model that is shared: who reads it hears of it, and of no other reader.
		m := *data
		m.Readers, m.ReadersOf, m.RequestID, m.OperationID = data.ReadersOf[tenant], nil, "", ""
		e.Data = &m
		return e, m.Readers > 0
	case *schemas.CommandEvent:
		return e, data.Tenant == tenant
	case *schemas.NodeEvent:
		switch e.Event {
		case schemas.EventStarted, schemas.EventDraining, schemas.EventStopped, schemas.EventRestored, schemas.EventDeviceLost:
			e.Data = &schemas.NodeEvent{Version: data.Version, DeviceID: data.DeviceID, Reason: data.Reason, Devices: data.Devices}
			return e, true
		}
		return e, false
	}
	// Of anything else the publisher says whose it is.
	return e, e.Tenant != "" && e.Tenant == tenant
}

// concerns tells whether some of the items are of a tenant.
func concerns(items []schemas.AllocationItem, tenant string) bool {
	for i := range items {
		if items[i].Tenant == tenant {
			return true
		}
	}
	return false
}
