package schemas

import "time"

// The reply data of every action. A list is written as [] when it is empty. The
// replies of changing actions embed Finished.

// Finished stands in the reply of every changing action that is done. Use Done.
type Finished struct {
	Status OperationStatus `json:"status"`
	// Replayed says that this is the first outcome of a repeated request_id.
	Replayed bool `json:"replayed,omitempty"`
}

// Done is the Finished of a command that is completed.
func Done() Finished { return Finished{Status: StatusCompleted} }

// SetReplayed marks a reply as the first outcome of a repeated request_id.
func (f *Finished) SetReplayed() { f.Replayed = true }

// Pending is the reply data of a changing action that is not done within its wait.
type Pending struct {
	// Status is StatusQueued or StatusRunning.
	Status      OperationStatus `json:"status"`
	OperationID string          `json:"operation_id"`
	Position    int             `json:"position"`
	// EstimatedMs is how long it will take from now: by the rate of what runs, by that of the
	// last load of the kind, by the leases and revocations that end before it. 0: nothing of
	// that is known.
	EstimatedMs float64 `json:"estimated_ms"`
	Reason      string  `json:"reason"`
	Replayed    bool    `json:"replayed,omitempty"`
}

// DryRunReply is the reply data of a changing action with dry_run.
type DryRunReply struct {
	Plan Plan `json:"plan"`
}

// DeviceStatus is the state of one device, or the sums over all.
type DeviceStatus struct {
	DeviceID      string         `json:"device_id"`
	MemoryInfo    MemoryInfo     `json:"memory_info"`
	UsageStats    *UsageStats    `json:"usage_stats,omitempty"`
	Allocations   []Allocation   `json:"allocations"`
	NextCursor    string         `json:"next_cursor,omitempty"`
	Fragmentation *Fragmentation `json:"fragmentation,omitempty"`
	ModelMemory   ModelMemory    `json:"model_memory"`
	HealthScore   float64        `json:"health_score"`
	LastUpdated   time.Time      `json:"last_updated"`
}

// GetStatusReply is one device's state; for all devices the sums, and each in Devices.
type GetStatusReply struct {
	DeviceStatus
	Devices []DeviceStatus `json:"devices,omitempty"`
	// Warnings are those in force, the worst first; tenants other than the default one
	// are told only of devices.
	Warnings []HealthWarning `json:"warnings"`
}

// DeviceUsage says who uses how much of one device.
type DeviceUsage struct {
	DeviceID        string         `json:"device_id"`
	MemoryInfo      MemoryInfo     `json:"memory_info"`
	PeakMemory      int64          `json:"peak_memory"`
	AllocationCount int            `json:"allocation_count"`
	ModelCount      int            `json:"model_count"`
	ByClass         []Share        `json:"by_class"`
	ByTenant        []Share        `json:"by_tenant"`
	ByProcess       []ProcessShare `json:"by_process"`
}

// GetUsageReply lists devices.
type GetUsageReply struct {
	Devices []DeviceUsage `json:"devices"`
}

// GetAllocationsReply is one page of grants; NextCursor is empty on the last.
type GetAllocationsReply struct {
	Allocations []Allocation `json:"allocations"`
	NextCursor  string       `json:"next_cursor,omitempty"`
}

// GetAllocationReply is one grant and, where asked for, its events.
type GetAllocationReply struct {
	Allocation Allocation       `json:"allocation"`
	History    []AllocationItem `json:"history,omitempty"`
}

// AllocateReply is what was granted.
type AllocateReply struct {
	Finished
	Success               bool       `json:"success"`
	DeviceID              string     `json:"device_id"`
	AllocationID          string     `json:"allocation_id"`
	Allocation            Allocation `json:"allocation"`
	AllocationTimeMs      float64    `json:"allocation_time_ms"`
	QueuedMs              float64    `json:"queued_ms"`
	Evicted               []Eviction `json:"evicted"`
	AvailableMemoryBytes  int64      `json:"available_memory_bytes"`
	UtilizationPercentage float64    `json:"utilization_percentage"`
	Message               string     `json:"message"`
	AllocatedAt           time.Time  `json:"allocated_at"`
	// Handle is absent for a reservation, which has no memory to map.
	Handle *Handle `json:"handle,omitempty"`
}

// DeallocateReply says what came of a release.
type DeallocateReply struct {
	Finished
	Success    bool  `json:"success"`
	FreedBytes int64 `json:"freed_bytes"`
	// Confirmed says that nobody else can touch the bytes any more.
	Confirmed             bool    `json:"confirmed"`
	ZombieBytes           int64   `json:"zombie_bytes"`
	AvailableMemoryBytes  int64   `json:"available_memory_bytes"`
	UtilizationPercentage float64 `json:"utilization_percentage"`
}

// GetHandleReply carries a fresh claim.
type GetHandleReply struct {
	Handle Handle `json:"handle"`
}

// Renewal is the new end of one lease.
type Renewal struct {
	AllocationID   string    `json:"allocation_id,omitempty"`
	ReferenceID    string    `json:"reference_id,omitempty"`
	LeaseExpiresAt time.Time `json:"lease_expires_at"`
}

// RenewReply lists every lease that was asked for.
type RenewReply struct {
	Finished
	Renewed []Renewal `json:"renewed"`
}

// ClearReply says what was filled or released.
type ClearReply struct {
	Finished
	ClearedBytes             int64   `json:"cleared_bytes"`
	ThroughputBytesPerSecond float64 `json:"throughput_bytes_per_second"`
	DurationMs               float64 `json:"duration_ms"`
}

// CopyReply says what was copied.
type CopyReply struct {
	Finished
	CopiedBytes              int64   `json:"copied_bytes"`
	DurationMs               float64 `json:"duration_ms"`
	ThroughputBytesPerSecond float64 `json:"throughput_bytes_per_second"`
}

// TransferReply names the running operation; TransferID equals its operation id.
type TransferReply struct {
	Finished
	Operation    Operation `json:"operation"`
	AllocationID string    `json:"allocation_id"`
	TransferID   string    `json:"transfer_id"`
}

// GetTransferReply is the state of a transfer.
type GetTransferReply struct {
	Operation Operation `json:"operation"`
}

// CancelTransferReply is the state that the transfer came to.
type CancelTransferReply struct {
	Finished
	Operation Operation `json:"operation"`
}

// GetOperationReply is the state of a command.
type GetOperationReply struct {
	Operation Operation `json:"operation"`
}

// CancelOperationReply is the state that the command came to.
type CancelOperationReply struct {
	Finished
	Operation Operation `json:"operation"`
}

// GetQueueReply lists who waits, in order.
type GetQueueReply struct {
	Waiting []Waiting `json:"waiting"`
}

// DefragmentReply says what a defragmentation did.
type DefragmentReply struct {
	Finished
	Before           FragmentationState `json:"before"`
	After            FragmentationState `json:"after"`
	MovedBytes       int64              `json:"moved_bytes"`
	ReleasedBytes    int64              `json:"released_bytes"`
	SegmentsReleased int                `json:"segments_released"`
	DurationMs       float64            `json:"duration_ms"`
	// Efficiency is released / moved, null if nothing moved.
	Efficiency *float64 `json:"efficiency"`
}

// OptimizationStep is one thing that an optimization did.
type OptimizationStep struct {
	Kind       string `json:"kind"`
	Subject    string `json:"subject"`
	Reason     string `json:"reason"`
	FreedBytes int64  `json:"freed_bytes"`
	// MovedBytes lie elsewhere on the device now.
	MovedBytes int64   `json:"moved_bytes,omitempty"`
	DurationMs float64 `json:"duration_ms"`
}

// OptimizeReply says what an optimization did.
type OptimizeReply struct {
	Finished
	Before     MemoryInfo `json:"before"`
	After      MemoryInfo `json:"after"`
	FreedBytes int64      `json:"freed_bytes"`
	// MovedBytes were copied to other segments, so that whole ones could be given back.
	MovedBytes int64              `json:"moved_bytes,omitempty"`
	Steps      []OptimizationStep `json:"steps"`
}

// SetLimitsReply is the limits in force.
type SetLimitsReply struct {
	Finished
	DeviceID        string        `json:"device_id"`
	LimitBytes      int64         `json:"limit_bytes"`
	ModelLimitBytes int64         `json:"model_limit_bytes"`
	ModelLimitMb    float64       `json:"model_limit_mb"`
	ReserveBytes    int64         `json:"reserve_bytes"`
	Thresholds      Thresholds    `json:"thresholds"`
	Tenant          *TenantLimits `json:"tenant,omitempty"`
}

// LoadModelReply is a loaded model.
type LoadModelReply struct {
	Finished
	Loaded                   bool     `json:"loaded"`
	Model                    Model    `json:"model"`
	AllocationIDs            []string `json:"allocation_ids"`
	Tier                     Tier     `json:"tier"`
	LoadTimeMs               float64  `json:"load_time_ms"`
	ThroughputBytesPerSecond float64  `json:"throughput_bytes_per_second"`
	SourceTier               Tier     `json:"source_tier"`
	// Verified is true where every byte was compared with the file, or the tensors with the hashes
	// that were given, as was asked for.
	Verified bool       `json:"verified,omitempty"`
	Handle   *Handle    `json:"handle,omitempty"`
	Evicted  []Eviction `json:"evicted"`
	// ReferenceID is of the reference that a session_id asked for.
	ReferenceID string `json:"reference_id,omitempty"`
}

// UnloadModelReply says what was unloaded.
type UnloadModelReply struct {
	Finished
	Unloaded bool `json:"unloaded"`
	// ModelsUnloaded names what was unloaded: several by ModelNameAll.
	ModelsUnloaded []string `json:"models_unloaded"`
	FreedBytes     int64    `json:"freed_bytes"`
	Confirmed      bool     `json:"confirmed"`
	ZombieBytes    int64    `json:"zombie_bytes"`
}

// AcquireModelReply is a reference to a model.
type AcquireModelReply struct {
	Finished
	ReferenceID    string     `json:"reference_id"`
	LeaseExpiresAt *time.Time `json:"lease_expires_at,omitempty"`
	Model          Model      `json:"model"`
}

// ReleaseModelReply names the reference that is gone.
type ReleaseModelReply struct {
	Finished
	ReferenceID string `json:"reference_id"`
}

// GetModelInfoReply is one page of models and their account.
type GetModelInfoReply struct {
	Models     []Model `json:"models"`
	NextCursor string  `json:"next_cursor,omitempty"`
	ModelMemory
}

// ModelStatusReply is the models' account.
type ModelStatusReply struct {
	LoadedModels map[string]Model `json:"loaded_models"`
	ModelMemory
	PressureLevel               PressureLevel    `json:"pressure_level"`
	AvailableOperations         []string         `json:"available_operations"`
	OptimizationRecommendations []Recommendation `json:"optimization_recommendations"`
	// LastSynchronized is the last agreement of ledger and driver.
	LastSynchronized time.Time `json:"last_synchronized"`
}

// PerformanceImpact is what releasing models costs later.
type PerformanceImpact struct {
	ReloadCostMs float64 `json:"reload_cost_ms"`
}

// ModelOptimizeReply says which models were released.
type ModelOptimizeReply struct {
	Finished
	OptimizationTriggered    bool             `json:"optimization_triggered"`
	OptimizationStrategy     EvictionStrategy `json:"optimization_strategy"`
	OptimizationStarted      time.Time        `json:"optimization_started"`
	EstimatedDurationSeconds float64          `json:"estimated_duration_seconds"`
	// MemoryFreed equals MemoryFreedBytes: bytes off the device, demoted or dropped.
	MemoryFreed         int64              `json:"memory_freed"`
	MemoryFreedBytes    int64              `json:"memory_freed_bytes"`
	ModelsUnloaded      []string           `json:"models_unloaded"`
	PerformanceImpact   PerformanceImpact  `json:"performance_impact"`
	OptimizationTimeMs  float64            `json:"optimization_time_ms"`
	OptimizationDetails []OptimizationStep `json:"optimization_details"`
	Message             string             `json:"message"`
}

// CleanupReply says what was freed.
type CleanupReply struct {
	Finished
	FreedBytes     int64    `json:"freed_bytes"`
	ModelsUnloaded []string `json:"models_unloaded"`
}

// GetPressureReply is one device's pressure, or every device's.
type GetPressureReply struct {
	Pressure *Pressure  `json:"pressure,omitempty"`
	Devices  []Pressure `json:"devices,omitempty"`
	// TenantPressure is of the caller's own quotas on these devices.
	TenantPressure []Pressure `json:"tenant_pressure,omitempty"`
}

// SeriesPoint is one sample of a device's history.
type SeriesPoint struct {
	DeviceID        string        `json:"device_id"`
	Timestamp       time.Time     `json:"timestamp"`
	UsedMemory      int64         `json:"used_memory"`
	AvailableMemory int64         `json:"available_memory"`
	PressureLevel   PressureLevel `json:"pressure_level"`
}

// Percentiles are of durations in milliseconds.
type Percentiles struct {
	Count int64   `json:"count"`
	P50Ms float64 `json:"p50_ms"`
	P90Ms float64 `json:"p90_ms"`
	P99Ms float64 `json:"p99_ms"`
	MaxMs float64 `json:"max_ms"`
}

// Peak is the highest use of one device in a window.
type Peak struct {
	DeviceID   string    `json:"device_id"`
	UsedMemory int64     `json:"used_memory"`
	Timestamp  time.Time `json:"timestamp"`
}

// Rates are per second over a window.
type Rates struct {
	GrantsPerSecond    float64 `json:"grants_per_second"`
	ReleasesPerSecond  float64 `json:"releases_per_second"`
	RefusalsPerSecond  float64 `json:"refusals_per_second"`
	EvictionsPerSecond float64 `json:"evictions_per_second"`
}

// DurationPercentiles are the durations that analytics reports.
type DurationPercentiles struct {
	Grant Percentiles `json:"grant"`
	Queue Percentiles `json:"queue"`
	Load  Percentiles `json:"load"`
}

// LeakSuspect is an owner whose bytes look like a leak.
type LeakSuspect struct {
	Owner string `json:"owner"`
	// By which rule it is suspected.
	Kind  LeakKind `json:"kind"`
	Bytes int64    `json:"bytes"`
	// How many allocations that is.
	Allocations         int     `json:"allocations"`
	GrowthBytesPerHour  float64 `json:"growth_bytes_per_hour"`
	OldestUnusedSeconds float64 `json:"oldest_unused_seconds"`
	// Since the oldest of them was granted.
	AgeSeconds float64 `json:"age_seconds"`
	Reason     string  `json:"reason"`
	// What to do.
	Fix string `json:"fix"`
	// The largest of them, ten at most.
	AllocationIDs []string `json:"allocation_ids"`
}

// HistoryGap is a time in which nobody looked: no node ran, or the machine slept.
type HistoryGap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// ModelRequests are the requests for models that are remembered of a device, and what they
// cost.
type ModelRequests struct {
	DeviceID string `json:"device_id"`
	// The time of the first and of the last of them.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// How many there were, and of how many models.
	Requests int `json:"requests"`
	Models   int `json:"models"`
	// How many of them had their model loaded: the first loads too, which no size is without.
	Loads int `json:"loads"`
	// The share of the requests that found their model there.
	HitRate       float64 `json:"hit_rate"`
	ReloadSeconds float64 `json:"reload_seconds"`
}

// WhatIf says what the remembered requests would have cost with another limit, by a replay of them
// through the node's eviction policy. The replay knows no readers, who keep models from being
// evicted: compare its rows with each other, and the one whose delta is 0 with what was seen.
type WhatIf struct {
	DeviceID string `json:"device_id"`
	// The limit, and by how much it differs from the present one.
	LimitBytes int64 `json:"limit_bytes"`
	DeltaBytes int64 `json:"delta_bytes"`
	// What is left for models, when others hold as much as they did on average.
	ModelBytes    int64   `json:"model_bytes"`
	Requests      int     `json:"requests"`
	Loads         int     `json:"loads"`
	HitRate       float64 `json:"hit_rate"`
	ReloadSeconds float64 `json:"reload_seconds"`
	// How many of these less than with the present limit; below 0: more.
	SavedSeconds float64 `json:"saved_seconds"`
	// Requests for models that do not fit at all; they count as loads.
	Unserved int `json:"unserved"`
}

// AnalyticsReply is what happened over a window.
type AnalyticsReply struct {
	Series       []SeriesPoint       `json:"series"`
	Peaks        []Peak              `json:"peaks"`
	Rates        Rates               `json:"rates"`
	Percentiles  DurationPercentiles `json:"percentiles"`
	ModelHitRate float64             `json:"model_hit_rate"`
	TopHolders   []Holder            `json:"top_holders"`
	LeakSuspects []LeakSuspect       `json:"leak_suspects"`
	// Times in the window of which nothing is known.
	Gaps []HistoryGap `json:"gaps"`
	// Of all requests that are remembered, whatever the window; for operators.
	ModelRequests []ModelRequests `json:"model_requests"`
	WhatIf        []WhatIf        `json:"what_if"`
}

// OptimizationRecsReply lists what could be done.
type OptimizationRecsReply struct {
	Recommendations []Recommendation `json:"recommendations"`
}

// ListDevicesReply lists the node's devices.
type ListDevicesReply struct {
	Devices []Device `json:"devices"`
}
