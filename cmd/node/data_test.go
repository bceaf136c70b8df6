package main

import (
	"time"

	"github.com/isobar-project/isobar/schemas"
)

const grantID = "0192f0c1-7b1e-7c3a-9d2e-2f8f4c1d5a77"

func granted() *schemas.AllocateReply {
	return &schemas.AllocateReply{
		Finished: schemas.Done(), Success: true, DeviceID: "ram-0", AllocationID: grantID, Allocation: grant(),
		AllocationTimeMs: 0.021, AvailableMemoryBytes: 8 << 30, UtilizationPercentage: 12.5, Message: "granted", AllocatedAt: then,
		Evicted: []schemas.Eviction{{Model: "vae", Tier: "ram", FreedBytes: 220 << 20, ReloadCostMs: 88.5}},
		Handle: &schemas.Handle{Kind: schemas.HandleMemfd, Node: "here", DataSocket: "/run/isobar/data.sock", Claim: "claim",
			ClaimExpiresAt: then.Add(time.Minute), SizeBytes: 64 << 20, SegmentCount: 1},
	}
}

func grant() schemas.Allocation {
	ends := then.Add(90 * time.Second)
	return schemas.Allocation{AllocationID: grantID, Node: "here", DeviceID: "ram-0", SizeBytes: 64 << 20, GrantedBytes: 64 << 20,
		AllocationType: schemas.DeviceTypeRAM, Class: schemas.ClassScratch, Purpose: "kv-cache", Status: schemas.AllocationActive,
		Owner: schemas.Owner{Tenant: "default", PID: 4711}, MappedBy: []schemas.Mapper{{PID: 4711, SessionID: "s", Mode: schemas.MapReadWrite}},
		LeaseExpiresAt: &ends, CreatedAt: then.Add(-3 * time.Minute), Timestamp: then.Add(-3 * time.Minute), LastUsed: then}
}

func memory(device string, kind schemas.DeviceType, used, total int64) schemas.MemoryInfo {
	return schemas.MemoryInfo{DeviceID: device, TotalMemory: total, PhysicalMemory: total, UsedMemory: used, AvailableMemory: total - used/2,
		FreeMemory: total - used, ModelMemory: used / 2, PooledMemory: 64 << 20, UsagePercentage: float64(used) * 100 / float64(total), Type: kind,
		Health: schemas.HealthHealthy, LastUpdated: then}
}

func pressure(level, before schemas.PressureLevel) schemas.Pressure {
	return schemas.Pressure{DeviceID: "gpu-0", PressureLevel: level, PreviousLevel: before, Cause: schemas.CauseGrant, Sequence: 4,
		TotalMemory: 1 << 30, UsedMemory: 880 << 20, AvailableMemory: 400 << 20, TargetBytes: 60 << 20, LargestGrantableBytes: 144 << 20,
		UtilizationPercentage: 85.9375, Quality: schemas.QualityFresh, RecommendedActions: []string{"unload_model"}, ObservedAt: &then}
}

// house is a node with something of everything.
func house() map[schemas.Action]any {
	low := pressure(schemas.PressureLow, schemas.PressureLow)
	low.DeviceID = "ram-0"
	return map[schemas.Action]any{
		schemas.ActionAllocate: granted(),
		schemas.ActionListDevices: &schemas.ListDevicesReply{Devices: []schemas.Device{
			{DeviceID: "ram-0", Type: schemas.DeviceTypeRAM, Name: "main memory", Driver: "hostram", Health: schemas.HealthHealthy},
			{DeviceID: "gpu-0", Type: schemas.DeviceTypeVRAM, Name: "simulated GPU", Driver: "sim", Simulated: true, Health: schemas.HealthDegraded,
				HealthReasons: []string{"copies are slow"}},
		}},
		schemas.ActionGetStatus: &schemas.GetStatusReply{
			DeviceStatus: schemas.DeviceStatus{DeviceID: "all", Allocations: []schemas.Allocation{grant()}, NextCursor: "more"},
			Devices: []schemas.DeviceStatus{
				{DeviceID: "ram-0", MemoryInfo: memory("ram-0", schemas.DeviceTypeRAM, 1<<30, 8<<30), UsageStats: &schemas.UsageStats{AllocationCount: 21}},
				{DeviceID: "gpu-0", MemoryInfo: memory("gpu-0", schemas.DeviceTypeVRAM, 880<<20, 1<<30), UsageStats: &schemas.UsageStats{}},
			},
			Warnings: []schemas.HealthWarning{
				{Code: schemas.WarnDisconnected, Severity: schemas.SeverityCritical, Subject: "events", Text: "the connection to NATS is lost and being made anew",
					Fix: "see whether the server runs", Since: then.Add(-5 * time.Second)},
				{Code: schemas.WarnDeviceDegraded, Severity: schemas.SeverityWarning, DeviceID: "gpu-0", Text: "copies are slow", Fix: "look at its log", Since: then.Add(-time.Hour)},
			}},
		schemas.ActionGetModelInfo: &schemas.GetModelInfoReply{Models: []schemas.Model{{Name: "encoder", State: schemas.ModelSealed, SizeBytes: 440 << 20,
			TensorCount: 101, Readers: 2, LastUsed: then.Add(-time.Hour), Pinned: true, Shared: true, Tenant: "default",
			Residency: []schemas.Residency{{DeviceID: "gpu-0", Tier: "vram", SizeBytes: 440 << 20}}}}},
		schemas.ActionGetQueue: &schemas.GetQueueReply{Waiting: []schemas.Waiting{{OperationID: "here.op-1", Tenant: "default", DeviceID: "gpu-0",
			SizeBytes: 512 << 20, Position: 1, WaitsFor: "368 MiB on gpu-0", Deadline: then.Add(25 * time.Second)}}},
		schemas.ActionGetPressure: &schemas.GetPressureReply{Devices: []schemas.Pressure{low, pressure(schemas.PressureHigh, schemas.PressureModerate)}},
	}
}
