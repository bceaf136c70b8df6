package crashtest

import (
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/schemas"
)

// books are what a node says of one device, from answers that have nothing in common.
type books struct {
	Memory schemas.MemoryInfo
	Grants map[string]schemas.Allocation
	// ByStatus sums the granted bytes of Grants.
	ByStatus map[schemas.AllocationStatus]int64
}

// booksOf reads a device's books: its figures from get_usage, its grants from
// get_allocations.
func booksOf(n *nodeProcess, c *client.Client, device string) books {
	n.t.Helper()
	u := must[schemas.GetUsageReply](n, c, schemas.ActionGetUsage, &schemas.GetUsageRequest{DeviceID: device})
	b := books{Memory: u.Devices[0].MemoryInfo, Grants: map[string]schemas.Allocation{}, ByStatus: map[schemas.AllocationStatus]int64{}}
	limit := 200
	for cursor := ""; ; {
		r := must[schemas.GetAllocationsReply](n, c, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{DeviceID: device, Limit: &limit, Cursor: cursor})
		for _, a := range r.Allocations {
			b.Grants[a.AllocationID] = a
			b.ByStatus[a.Status] += a.GrantedBytes
		}
		if cursor = r.NextCursor; cursor == "" {
			return b
		}
	}
}

// own are the bytes in use that are not somebody else's.
func (b *books) own() int64 { return b.Memory.UsedMemory - b.Memory.ForeignMemory }

// balanced checks the independent sums against each other while nothing is under way: the
// grants with the figures, and those of all devices with what the vault holds.
func balanced(n *nodeProcess, c *client.Client, k *keeper) map[string]books {
	n.t.Helper()
	all := map[string]books{}
	var backed int64
	for _, d := range n.settings.Devices {
		b := booksOf(n, c, d.ID)
		all[d.ID] = b
		m := b.Memory
		sum := int64(0)
		for _, bytes := range b.ByStatus {
			sum += bytes
		}
		if sum != b.own() {
			n.t.Errorf("%s: grants of %d bytes, %d in use by the figures", d.ID, sum, b.own())
		}
		if b.ByStatus[schemas.AllocationRevoking] != m.RevokingMemory || b.ByStatus[schemas.AllocationZombie] != m.ZombieMemory {
			n.t.Errorf("%s: by status %v, by the figures %d revoking and %d zombie", d.ID, b.ByStatus, m.RevokingMemory, m.ZombieMemory)
		}
		if m.UsedMemory+m.FreeMemory+m.PooledMemory != m.TotalMemory {
			n.t.Errorf("%s: the figures do not add up: %+v", d.ID, m)
		}
		backed += sum - m.ReservedMemory + m.PooledMemory
	}
	if stats, bytes := k.segments(); bytes != backed {
		n.t.Errorf("the vault holds %d bytes in %d segments, the books say %d", bytes, len(stats), backed)
	}
	return all
}
