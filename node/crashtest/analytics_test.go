package crashtest

import (
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

// What a node has seen is told by the one that comes after its death; a clean stop with
// nothing held ends it.
func TestHistoryOutlivesTheNode(t *testing.T) {
	s := ram(place(t))
	n := start(t, s)
	c := n.client()
	x := consume(t, n)
	grant(t, n, c, x, schemas.AllocateRequest{SizeBytes: 4 * mib}, 1)
	id := grant(t, n, c, nil, schemas.AllocateRequest{SizeBytes: 32 * mib, Class: schemas.ClassState}, 0)
	one := int64(1)
	ask := &schemas.AnalyticsRequest{ResolutionSeconds: &one}
	before := must[schemas.AnalyticsReply](n, c, schemas.ActionAnalytics, ask)
	must[schemas.DeallocateReply](n, c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id})
	if before.Percentiles.Grant.Count != 2 || len(before.Peaks) != 1 || before.Peaks[0].UsedMemory < 36*mib {
		t.Fatalf("before %+v, %+v", before.Percentiles, before.Peaks)
	}

	n.kill()
	n = start(t, s)
	c = n.client()
	after := must[schemas.AnalyticsReply](n, c, schemas.ActionAnalytics, ask)
	if after.Percentiles.Grant != before.Percentiles.Grant || after.Peaks[0].UsedMemory < before.Peaks[0].UsedMemory || after.Rates.GrantsPerSecond <= 0 {
		t.Errorf("after %+v, %+v, %+v; before %+v", after.Percentiles, after.Peaks, after.Rates, before.Percentiles)
	}
	x.kill()
	n.stop()
	n = start(t, s)
	if r := must[schemas.AnalyticsReply](n, n.client(), schemas.ActionAnalytics, ask); r.Percentiles.Grant.Count != 0 {
		t.Errorf("after a clean stop %+v", r.Percentiles)
	}
	n.stop()
}
