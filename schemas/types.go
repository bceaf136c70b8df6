package schemas

import "time"

// DeviceIDAll stands for every device where a request takes one or all.
const DeviceIDAll = "all"

// DefaultTenant is the only tenant of a node without tenant configuration.
const DefaultTenant = "default"

// Device describes one memory device of a node.
type Device struct {
	DeviceID         string     `json:"device_id"`
	Type             DeviceType `json:"type"`
	Name             string     `json:"name"`
	Driver           string     `json:"driver"`
	UUID             string     `json:"uuid"`
	Simulated        bool       `json:"simulated"`
	GranularityBytes int64      `json:"granularity_bytes"`
	Peers            []string   `json:"peers"`
	NUMANode         int        `json:"numa_node"`
	Health           Health     `json:"health"`
	HealthReasons    []string   `json:"health_reasons"`
}

// MemoryInfo is the account of one device's bytes, or the sum over all devices.
type MemoryInfo struct {
	DeviceID string `json:"device_id"`
	// TotalMemory is the limit in force, not the physical size.
	TotalMemory    int64 `json:"total_memory"`
	PhysicalMemory int64 `json:"physical_memory"`
	UsedMemory     int64 `json:"used_memory"`
	// AvailableMemory is what a request can get when room is made for it.
	AvailableMemory         int64      `json:"available_memory"`
	FreeMemory              int64      `json:"free_memory"`
	ReservedMemory          int64      `json:"reserved_memory"`
	RevokingMemory          int64      `json:"revoking_memory"`
	ZombieMemory            int64      `json:"zombie_memory"`
	ForeignMemory           int64      `json:"foreign_memory"`
	PooledMemory            int64      `json:"pooled_memory"`
	ReclaimableMemory       int64      `json:"reclaimable_memory"`
	ModelMemory             int64      `json:"model_memory"`
	UsagePercentage         float64    `json:"usage_percentage"`
	FragmentationPercentage float64    `json:"fragmentation_percentage"`
	LargestGrantableBytes   int64      `json:"largest_grantable_bytes"`
	DriftBytes              int64      `json:"drift_bytes"`
	Type                    DeviceType `json:"type"`
	Health                  Health     `json:"health"`
	// ObservedAt is when the outside figures were taken; absent before the first sample.
	ObservedAt  *time.Time `json:"observed_at,omitempty"`
	LastUpdated time.Time  `json:"last_updated"`
}

// Owner says whose a grant is.
type Owner struct {
	Tenant    string `json:"tenant"`
	User      string `json:"user,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	PID       int    `json:"pid,omitempty"`
}

// Mapper is a session that maps a grant.
type Mapper struct {
	PID       int     `json:"pid"`
	SessionID string  `json:"session_id"`
	Mode      MapMode `json:"mode"`
}

// Allocation describes one grant.
type Allocation struct {
	AllocationID string `json:"allocation_id"`
	Node         string `json:"node"`
	DeviceID     string `json:"device_id"`
	// SizeBytes is what was asked for, GrantedBytes what the device gave up for it.
	SizeBytes      int64            `json:"size_bytes"`
	GrantedBytes   int64            `json:"granted_bytes"`
	AllocationType DeviceType       `json:"allocation_type"`
	Class          Class            `json:"class"`
	Alignment      int64            `json:"alignment"`
	Purpose        string           `json:"purpose"`
	Persistent     bool             `json:"persistent"`
	Priority       int              `json:"priority"`
	Status         AllocationStatus `json:"status"`
	Owner          Owner            `json:"owner"`
	ModelName      string           `json:"model_name,omitempty"`
	MappedBy       []Mapper         `json:"mapped_by"`
	LeaseExpiresAt *time.Time       `json:"lease_expires_at,omitempty"`
	CreatedAt      time.Time        `json:"created_at"`
	// Timestamp equals CreatedAt; older clients read it.
	Timestamp time.Time `json:"timestamp"`
	LastUsed  time.Time `json:"last_used"`
}

// Handle is what a client needs to fetch its memory from the data socket.
type Handle struct {
	Kind       HandleKind `json:"kind"`
	Node       string     `json:"node"`
	DataSocket string     `json:"data_socket"`
	// Claim is a secret: single use, short-lived, never in an event or a log.
	Claim          string    `json:"claim"`
	ClaimExpiresAt time.Time `json:"claim_expires_at"`
	SizeBytes      int64     `json:"size_bytes"`
	SegmentCount   int       `json:"segment_count"`
}

// Segment is one piece of a mapping, sent on the data socket.
type Segment struct {
	// FD is an index among the descriptors of the message that carries the segment.
	FD           int   `json:"fd"`
	SegmentBytes int64 `json:"segment_bytes"`
	// Offset is where the grant's bytes begin in the segment, SizeBytes how many there are.
	Offset    int64 `json:"offset"`
	SizeBytes int64 `json:"size_bytes"`
}

// Tensor is one named array of a model. DType is spelled as in safetensors
// (F32, BF16, F8_E4M3, I64, …), GGUF block types as GGUF_Q4_K.
type Tensor struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
	// Segment is an index among the mapping's segments; Offset counts from the
	// segment's first byte of this grant.
	Segment   int   `json:"segment"`
	Offset    int64 `json:"offset"`
	SizeBytes int64 `json:"size_bytes"`
}

// UsageStats counts what a device did since its node's ledger began.
type UsageStats struct {
	PeakMemory      int64   `json:"peak_memory"`
	AllocationCount int     `json:"allocation_count"`
	ModelCount      int     `json:"model_count"`
	GrantsTotal     int64   `json:"grants_total"`
	ReleasesTotal   int64   `json:"releases_total"`
	RefusalsTotal   int64   `json:"refusals_total"`
	EvictionsTotal  int64   `json:"evictions_total"`
	QueueLength     int     `json:"queue_length"`
	AverageGrantMs  float64 `json:"average_grant_ms"`
	UptimeSeconds   float64 `json:"uptime_seconds"`
}

// Fragmentation says how broken up the free bytes inside our segments are.
type Fragmentation struct {
	FragmentationPercentage float64 `json:"fragmentation_percentage"`
	LargestFreeBytes        int64   `json:"largest_free_bytes"`
	FreeBytes               int64   `json:"free_bytes"`
	FreeBlocks              int     `json:"free_blocks"`
	Segments                int     `json:"segments"`
	InternalWasteBytes      int64   `json:"internal_waste_bytes"`
}

// Share is one row of by_class or by_tenant.
type Share struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Count int    `json:"count"`
}

// ProcessShare is one row of by_process.
type ProcessShare struct {
	PID   int   `json:"pid"`
	Bytes int64 `json:"bytes"`
	Count int   `json:"count"`
}

// Holder is who holds bytes that somebody else wants.
type Holder struct {
	Owner string `json:"owner"`
	Bytes int64  `json:"bytes"`
}

// Pressure is the state of one device's, or one quota's, level.
type Pressure struct {
	DeviceID string `json:"device_id"`
	// Tenant is set for the pressure of a quota.
	Tenant            string        `json:"tenant,omitempty"`
	PressureLevel     PressureLevel `json:"pressure_level"`
	PreviousLevel     PressureLevel `json:"previous_level"`
	Cause             PressureCause `json:"cause"`
	Sequence          uint64        `json:"sequence"`
	EpisodeID         string        `json:"episode_id"`
	TotalMemory       int64         `json:"total_memory"`
	UsedMemory        int64         `json:"used_memory"`
	AvailableMemory   int64         `json:"available_memory"`
	ReservedMemory    int64         `json:"reserved_memory"`
	ForeignMemory     int64         `json:"foreign_memory"`
	ZombieMemory      int64         `json:"zombie_memory"`
	ReclaimableMemory int64         `json:"reclaimable_memory"`
	DeficitBytes      int64         `json:"deficit_bytes"`
	// TargetBytes is what to release to leave the level.
	TargetBytes                int64   `json:"target_bytes"`
	LargestGrantableBytes      int64   `json:"largest_grantable_bytes"`
	UtilizationPercentage      float64 `json:"utilization_percentage"`
	ModelUtilizationPercentage float64 `json:"model_utilization_percentage"`
	TrendBytesPerSecond        float64 `json:"trend_bytes_per_second"`
	// ExhaustionSeconds is when the trend meets the limit; absent when it never does.
	ExhaustionSeconds  *float64   `json:"exhaustion_seconds,omitempty"`
	Quality            Quality    `json:"quality"`
	RecommendedActions []string   `json:"recommended_actions"`
	TopHolders         []Holder   `json:"top_holders"`
	TriggerRequestID   string     `json:"trigger_request_id,omitempty"`
	ObservedAt         *time.Time `json:"observed_at,omitempty"`
	// ReminderSequence counts the reminders of one critical episode; only in a pressure_reminder.
	ReminderSequence uint64 `json:"reminder_sequence,omitempty"`
}

// Residency is one copy of a model in memory.
type Residency struct {
	DeviceID     string `json:"device_id"`
	Tier         Tier   `json:"tier"`
	SizeBytes    int64  `json:"size_bytes"`
	AllocationID string `json:"allocation_id"`
}

// LoadCost is what loading a model again would take, in milliseconds, by source.
type LoadCost struct {
	Disk float64 `json:"disk"`
	RAM  float64 `json:"ram"`
}

// Model describes one model that a node knows.
type Model struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Path      string `json:"path"`
	ContentID string `json:"content_id"`
	Type      string `json:"type"`
	Shared    bool   `json:"shared"`
	Pinned    bool   `json:"pinned"`
	// State is absent for a model that the node knows and that is nowhere in memory.
	State       ModelState  `json:"state,omitempty"`
	Residency   []Residency `json:"residency"`
	SizeBytes   int64       `json:"size_bytes"`
	TensorCount int         `json:"tensor_count"`
	Readers     int         `json:"readers"`
	LastUsed    time.Time   `json:"last_used"`
	Loads       int64       `json:"loads"`
	LoadCostMs  LoadCost    `json:"load_cost_ms"`
	Tenant      string      `json:"tenant"`
	// Tensors is present only where include_tensors was asked for.
	Tensors []Tensor `json:"tensors,omitempty"`
}

// Operation is a command that was not done within its wait.
type Operation struct {
	OperationID              string          `json:"operation_id"`
	RequestID                string          `json:"request_id"`
	Action                   Action          `json:"action"`
	Status                   OperationStatus `json:"status"`
	Position                 int             `json:"position"`
	BytesDone                int64           `json:"bytes_done"`
	BytesTotal               int64           `json:"bytes_total"`
	ProgressPercentage       float64         `json:"progress_percentage"`
	ThroughputBytesPerSecond float64         `json:"throughput_bytes_per_second"`
	// EstimatedMs is as in Pending.
	EstimatedMs float64 `json:"estimated_ms"`
	Reason      string  `json:"reason,omitempty"`
	// Result is the action's own reply data once the operation is completed: its
	// reply type, or those bytes as json.RawMessage.
	Result any             `json:"result,omitempty"`
	Error  *OperationError `json:"error,omitempty"`
}

// OperationError is how an operation failed.
type OperationError struct {
	ErrorCode    Code           `json:"error_code"`
	ErrorMessage string         `json:"error_message"`
	StatusCode   int            `json:"status_code"`
	Details      map[string]any `json:"details,omitempty"`
}

// Eviction is one model released, or to be released, to make room.
type Eviction struct {
	Model        string  `json:"model"`
	Tier         Tier    `json:"tier"`
	FreedBytes   int64   `json:"freed_bytes"`
	ReloadCostMs float64 `json:"reload_cost_ms"`
}

// Plan is what a dry run foresees.
type Plan struct {
	Outcome     PlanOutcome `json:"outcome"`
	Position    int         `json:"position"`
	Evict       []Eviction  `json:"evict"`
	Reason      string      `json:"reason"`
	EstimatedMs float64     `json:"estimated_ms"`
}

// Waiting is one request in a device's queue.
type Waiting struct {
	OperationID string    `json:"operation_id"`
	Tenant      string    `json:"tenant"`
	DeviceID    string    `json:"device_id"`
	SizeBytes   int64     `json:"size_bytes"`
	Priority    int       `json:"priority"`
	Position    int       `json:"position"`
	WaitsFor    string    `json:"waits_for"`
	Deadline    time.Time `json:"deadline"`
}

// ModelMemory is what models take, in bytes and in megabytes of 1,048,576 bytes.
type ModelMemory struct {
	MemoryUsageBytes     int64   `json:"memory_usage_bytes"`
	MemoryUsageMb        float64 `json:"memory_usage_mb"`
	MemoryLimitBytes     int64   `json:"memory_limit_bytes"`
	MemoryLimitMb        float64 `json:"memory_limit_mb"`
	AvailableMemoryBytes int64   `json:"available_memory_bytes"`
	AvailableMemoryMb    float64 `json:"available_memory_mb"`
	ModelCount           int     `json:"model_count"`
}

// NewModelMemory fills in the megabyte twins.
func NewModelMemory(usage, limit, available int64, models int) ModelMemory {
	return ModelMemory{
		MemoryUsageBytes: usage, MemoryUsageMb: Megabytes(usage),
		MemoryLimitBytes: limit, MemoryLimitMb: Megabytes(limit),
		AvailableMemoryBytes: available, AvailableMemoryMb: Megabytes(available),
		ModelCount: models,
	}
}

// FragmentationState is one end of a defragmentation.
type FragmentationState struct {
	FragmentationPercentage float64 `json:"fragmentation_percentage"`
	LargestFreeBytes        int64   `json:"largest_free_bytes"`
	Segments                int     `json:"segments"`
}

// Threshold is where a pressure level is entered and left, in percent of the limit.
// On input a bare number is the enter value.
type Threshold struct {
	Enter float64 `json:"enter" check:"required,positive,max=100"`
	// Leave is filled in by SetLimitsRequest.Validate where it is absent.
	Leave *float64 `json:"leave,omitempty" check:"min=0,max=100"`
}

// ScalarField names the field that a bare value stands for.
func (Threshold) ScalarField() string { return "enter" }

// Thresholds are the three levels above low.
type Thresholds struct {
	Moderate *Threshold `json:"moderate,omitempty"`
	High     *Threshold `json:"high,omitempty"`
	Critical *Threshold `json:"critical,omitempty"`
}

// TenantLimits are one tenant's quota on a device.
type TenantLimits struct {
	Name       string `json:"name" check:"required,bytes=64"`
	FloorBytes *int64 `json:"floor_bytes,omitempty" check:"min=0,max=1152921504606846976"`
	SoftBytes  *int64 `json:"soft_bytes,omitempty" check:"min=0,max=1152921504606846976"`
	HardBytes  *int64 `json:"hard_bytes,omitempty" check:"min=0,max=1152921504606846976"`
	// Its share against other tenants': of what is granted while others wait, and of what its models
	// are worth when some have to go. 0 is 1.
	Weight float64 `json:"weight,omitempty" check:"min=0,max=1000"`
}

// Recommendation is one thing that an operator could do.
type Recommendation struct {
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
	// ExpectedBytes are what it frees, or makes available.
	ExpectedBytes  int64   `json:"expected_bytes"`
	ExpectedCostMs float64 `json:"expected_cost_ms"`
	// Command is ready to be sent.
	Command RecommendedCommand `json:"command"`
}

// RecommendedCommand is an envelope without its request_id.
type RecommendedCommand struct {
	Action Action         `json:"action"`
	Data   map[string]any `json:"data"`
}
