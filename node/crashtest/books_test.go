package crashtest

import (
	"fmt"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
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

// balanced checks the independent sums against each other: the grants with the figures,
// and those of all devices with what the vault holds. What is under way may take its time.
func balanced(n *nodeProcess, c *client.Client, k *keeper) map[string]books {
	n.t.Helper()
	for limit := clock.Real().Now().Add(patience); ; {
		all, wrong := weigh(n, c, k)
		if wrong == "" {
			return all
		}
		if clock.Real().Now() > limit {
			n.t.Fatal(wrong)
		}
	}
}

func weigh(n *nodeProcess, c *client.Client, k *keeper) (all map[string]books, wrong string) {
	n.t.Helper()
	all = map[string]books{}
	var backed int64
	for _, d := range n.settings.Devices {
		b := booksOf(n, c, d.ID)
		all[d.ID] = b
		m := b.Memory
		sum := int64(0)
		for _, bytes := range b.ByStatus {
			sum += bytes
		}
		switch {
		case sum != b.own():
			return nil, fmt.Sprintf("%s: grants of %d bytes, %d in use by the figures", d.ID, sum, b.own())
		case b.ByStatus[schemas.AllocationRevoking] != m.RevokingMemory || b.ByStatus[schemas.AllocationZombie] != m.ZombieMemory:
			return nil, fmt.Sprintf("%s: by status %v, by the figures %d revoking and %d zombie", d.ID, b.ByStatus, m.RevokingMemory, m.ZombieMemory)
		case m.UsedMemory+m.FreeMemory+m.PooledMemory != m.TotalMemory:
			return nil, fmt.Sprintf("%s: the figures do not add up: %+v", d.ID, m)
		}
		backed += sum - m.ReservedMemory + m.PooledMemory
	}
	if stats, bytes := k.segments(); bytes != backed {
		return nil, fmt.Sprintf("the vault holds %d bytes in %d segments, the books say %d", bytes, len(stats), backed)
	}
	return all, ""
}
