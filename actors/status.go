package actors

import "github.com/isobar-project/isobar/schemas"

// sumStatus is the answer to get_status for all devices: sums, and the worst health.
func sumStatus(parts []schemas.DeviceStatus) schemas.DeviceStatus {
	sum := schemas.DeviceStatus{DeviceID: schemas.DeviceIDAll, Allocations: []schemas.Allocation{}, HealthScore: 100}
	m := &sum.MemoryInfo
	m.DeviceID, m.Type, m.Health = schemas.DeviceIDAll, schemas.DeviceTypeUnknown, schemas.HealthHealthy
	var usage schemas.UsageStats
	var frag schemas.Fragmentation
	var grants, models int64
	for i := range parts {
		p := &parts[i]
		addMemory(m, &p.MemoryInfo)
		sum.HealthScore = min(sum.HealthScore, p.HealthScore)
		if p.LastUpdated.After(sum.LastUpdated) {
			sum.LastUpdated = p.LastUpdated
		}
		if u := p.UsageStats; u != nil {
			sum.UsageStats = &usage
			grants += int64(float64(u.GrantsTotal) * u.AverageGrantMs)
			usage = schemas.UsageStats{PeakMemory: usage.PeakMemory + u.PeakMemory, AllocationCount: usage.AllocationCount + u.AllocationCount,
				ModelCount: usage.ModelCount + u.ModelCount, GrantsTotal: usage.GrantsTotal + u.GrantsTotal, ReleasesTotal: usage.ReleasesTotal + u.ReleasesTotal,
				RefusalsTotal: usage.RefusalsTotal + u.RefusalsTotal, EvictionsTotal: usage.EvictionsTotal + u.EvictionsTotal,
				QueueLength: usage.QueueLength + u.QueueLength, UptimeSeconds: max(usage.UptimeSeconds, u.UptimeSeconds)}
		}
		if f := p.Fragmentation; f != nil {
			sum.Fragmentation = &frag
			frag.FreeBytes += f.FreeBytes
			frag.FreeBlocks += f.FreeBlocks
			frag.Segments += f.Segments
			frag.InternalWasteBytes += f.InternalWasteBytes
			frag.LargestFreeBytes = max(frag.LargestFreeBytes, f.LargestFreeBytes)
		}
		models += int64(p.ModelMemory.ModelCount)
		mm := p.ModelMemory
		sum.ModelMemory = schemas.NewModelMemory(sum.ModelMemory.MemoryUsageBytes+mm.MemoryUsageBytes, sum.ModelMemory.MemoryLimitBytes+mm.MemoryLimitBytes,
			sum.ModelMemory.AvailableMemoryBytes+mm.AvailableMemoryBytes, int(models))
	}
	if usage.GrantsTotal > 0 {
		usage.AverageGrantMs = float64(grants) / float64(usage.GrantsTotal)
	}
	if frag.FreeBytes > 0 {
		frag.FragmentationPercentage = 100 * (1 - float64(frag.LargestFreeBytes)/float64(frag.FreeBytes))
	}
	m.UsagePercentage = percent(m.UsedMemory, m.TotalMemory)
	m.FragmentationPercentage = frag.FragmentationPercentage
	m.LastUpdated = sum.LastUpdated
	return sum
}

func addMemory(sum, m *schemas.MemoryInfo) {
	sum.TotalMemory += m.TotalMemory
	sum.PhysicalMemory += m.PhysicalMemory
	sum.UsedMemory += m.UsedMemory
	sum.AvailableMemory += m.AvailableMemory
	sum.FreeMemory += m.FreeMemory
	sum.ReservedMemory += m.ReservedMemory
	sum.RevokingMemory += m.RevokingMemory
	sum.ZombieMemory += m.ZombieMemory
	sum.ForeignMemory += m.ForeignMemory
	sum.PooledMemory += m.PooledMemory
	sum.ReclaimableMemory += m.ReclaimableMemory
	sum.ModelMemory += m.ModelMemory
	sum.DriftBytes += m.DriftBytes
	sum.LargestGrantableBytes = max(sum.LargestGrantableBytes, m.LargestGrantableBytes)
	if m.ObservedAt != nil && (sum.ObservedAt == nil || m.ObservedAt.Before(*sum.ObservedAt)) {
		sum.ObservedAt = m.ObservedAt
	}
	for _, h := range []schemas.Health{schemas.HealthDegraded, schemas.HealthFailing, schemas.HealthLost} {
		if m.Health == h {
			sum.Health = worse(sum.Health, h)
		}
	}
}

func worse(a, b schemas.Health) schemas.Health {
	rank := map[schemas.Health]int{schemas.HealthHealthy: 0, schemas.HealthDegraded: 1, schemas.HealthFailing: 2, schemas.HealthLost: 3}
	if rank[b] > rank[a] {
		return b
	}
	return a
}
