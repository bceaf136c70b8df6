package schemas

// The requests of every action. doc.go says what the tags mean; package codec acts
// on them. wait_ms and dry_run, which every changing action takes, are not fields
// of these types: the decoder takes them out.

// GetStatusRequest asks for the state of one device or of all.
type GetStatusRequest struct {
	DeviceID             string `json:"device_id,omitempty" default:"all" check:"bytes=128"`
	IncludeAllocations   *bool  `json:"include_allocations,omitempty" default:"true"`
	IncludeUsageStats    *bool  `json:"include_usage_stats,omitempty" default:"true"`
	IncludeFragmentation bool   `json:"include_fragmentation,omitempty"`
	Limit                *int   `json:"limit,omitempty" default:"100" check:"min=1,max=1000"`
}

// GetUsageRequest asks who uses how much; an empty DeviceID means every device.
type GetUsageRequest struct {
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// GetAllocationsRequest lists grants; an empty filter matches everything.
type GetAllocationsRequest struct {
	DeviceID  string           `json:"device_id,omitempty" check:"bytes=128"`
	Tenant    string           `json:"tenant,omitempty" check:"bytes=64" unbuilt:"true"`
	Class     Class            `json:"class,omitempty"`
	Purpose   string           `json:"purpose,omitempty"`
	ModelName string           `json:"model_name,omitempty"`
	Status    AllocationStatus `json:"status,omitempty"`
	Limit     *int             `json:"limit,omitempty" default:"100" check:"min=1,max=1000"`
	Cursor    string           `json:"cursor,omitempty" check:"bytes=512"`
}

// GetAllocationRequest asks for one grant.
type GetAllocationRequest struct {
	AllocationID   string `json:"allocation_id" check:"required,bytes=128"`
	IncludeHistory bool   `json:"include_history,omitempty"`
}

// AllocateRequest asks for memory.
type AllocateRequest struct {
	// DeviceID may be empty where the node has one device of the asked type.
	DeviceID  string `json:"device_id,omitempty" check:"bytes=128"`
	SizeBytes int64  `json:"size_bytes" check:"required,positive,max=1152921504606846976"`
	// AllocationType is empty when the client did not say; else it must fit the device.
	AllocationType DeviceType `json:"allocation_type,omitempty" alias:"memory_type"`
	Class          Class      `json:"class,omitempty" default:"scratch"`
	Alignment      int64      `json:"alignment,omitempty" check:"pow2,max=2097152"`
	Purpose        string     `json:"purpose,omitempty"`
	Persistent     bool       `json:"persistent,omitempty"`
	// TimeoutSeconds is the longest stay in the queue; 0 means don't queue.
	TimeoutSeconds *int64 `json:"timeout_seconds,omitempty" default:"30" check:"min=0,max=604800"`
	// LeaseSeconds is nil for a grant without a lease.
	LeaseSeconds *int64 `json:"lease_seconds,omitempty" check:"min=1,max=31536000"`
	// Priority: higher first.
	Priority  int    `json:"priority,omitempty" check:"min=-1000000,max=1000000"`
	SessionID string `json:"session_id,omitempty" check:"bytes=128"`
	// PID is the process whose tree a reservation follows.
	PID   *int `json:"pid,omitempty" check:"min=1,max=4194304" unbuilt:"true"`
	Clear bool `json:"clear,omitempty"`
}

// DeallocateRequest gives a grant back.
type DeallocateRequest struct {
	AllocationID string `json:"allocation_id" check:"required,bytes=128"`
	Force        bool   `json:"force,omitempty"`
	DeadlineMs   *int64 `json:"deadline_ms,omitempty" default:"2000" check:"min=0,max=600000"`
}

// GetHandleRequest asks for a fresh claim on a grant or a model, exactly one of them.
type GetHandleRequest struct {
	AllocationID string `json:"allocation_id,omitempty" check:"bytes=128"`
	ModelName    string `json:"model_name,omitempty"`
	// DeviceID says which copy of a model.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// RenewRequest extends leases of grants and of model references.
type RenewRequest struct {
	AllocationIDs []string `json:"allocation_ids,omitempty" check:"bytes=128"`
	ReferenceIDs  []string `json:"reference_ids,omitempty" check:"bytes=128"`
	LeaseSeconds  int64    `json:"lease_seconds" check:"required,min=1,max=31536000"`
}

// ClearRequest fills a grant with one byte, or, with DeviceID and Confirm, releases
// everything of the caller's tenant on a device.
type ClearRequest struct {
	AllocationID string `json:"allocation_id,omitempty" check:"bytes=128"`
	Offset       int64  `json:"offset,omitempty" check:"min=0,max=1152921504606846976"`
	SizeBytes    *int64 `json:"size_bytes,omitempty" check:"positive,max=1152921504606846976"`
	FillValue    int    `json:"fill_value,omitempty" check:"min=0,max=255"`
	DeviceID     string `json:"device_id,omitempty" check:"bytes=128"`
	Confirm      bool   `json:"confirm,omitempty"`
}

// CopyRequest copies bytes between two grants of one device.
type CopyRequest struct {
	SourceAllocationID string `json:"source_allocation_id" check:"required,bytes=128"`
	TargetAllocationID string `json:"target_allocation_id" check:"required,bytes=128"`
	SourceOffset       int64  `json:"source_offset,omitempty" check:"min=0,max=1152921504606846976"`
	TargetOffset       int64  `json:"target_offset,omitempty" check:"min=0,max=1152921504606846976"`
	SizeBytes          *int64 `json:"size_bytes,omitempty" check:"positive,max=1152921504606846976"`
}

// TransferRequest copies or moves a grant to another device.
type TransferRequest struct {
	AllocationID   string `json:"allocation_id" check:"required,bytes=128"`
	TargetDeviceID string `json:"target_device_id" check:"required,bytes=128"`
	// SourceDeviceID must agree with the grant's device where it is given.
	SourceDeviceID string `json:"source_device_id,omitempty" check:"bytes=128"`
	SizeBytes      *int64 `json:"size_bytes,omitempty" check:"positive,max=1152921504606846976"`
	Move           bool   `json:"move,omitempty"`
}

// GetTransferRequest asks how a transfer goes.
type GetTransferRequest struct {
	TransferID string `json:"transfer_id" check:"required,bytes=128"`
}

// CancelTransferRequest stops a transfer.
type CancelTransferRequest struct {
	TransferID string `json:"transfer_id" check:"required,bytes=128"`
}

// GetOperationRequest asks how a command goes, by one of its two ids, and waits up
// to WaitMs for its end. By RequestID it needs an envelope around it: a bare
// {"request_id": …} is itself an envelope.
type GetOperationRequest struct {
	OperationID string `json:"operation_id,omitempty" check:"bytes=128"`
	RequestID   string `json:"request_id,omitempty" check:"bytes=128"`
	WaitMs      int64  `json:"wait_ms,omitempty" check:"min=0,max=600000"`
}

// CancelOperationRequest stops a command, by one of its two ids.
type CancelOperationRequest struct {
	OperationID string `json:"operation_id,omitempty" check:"bytes=128"`
	RequestID   string `json:"request_id,omitempty" check:"bytes=128"`
	WaitMs      int64  `json:"wait_ms,omitempty" check:"min=0,max=600000"`
}

// GetQueueRequest lists who waits; an empty DeviceID means every device.
type GetQueueRequest struct {
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// DefragmentRequest moves blocks together.
type DefragmentRequest struct {
	DeviceID       string             `json:"device_id" check:"required,bytes=128"`
	Strategy       DefragmentStrategy `json:"strategy,omitempty" default:"incremental"`
	MaxBytesToMove *int64             `json:"max_bytes_to_move,omitempty" check:"min=0,max=1152921504606846976"`
	MaxDurationMs  *int64             `json:"max_duration_ms,omitempty" check:"min=1,max=3600000"`
}

// OptimizeRequest brings a device's use down to a target.
type OptimizeRequest struct {
	DeviceID              string           `json:"device_id" check:"required,bytes=128"`
	OptimizationType      OptimizationType `json:"optimization_type,omitempty" default:"auto"`
	Force                 bool             `json:"force,omitempty"`
	TargetUsagePercentage *float64         `json:"target_usage_percentage,omitempty" default:"80" check:"min=0,max=100"`
	PreserveAllocations   []string         `json:"preserve_allocations,omitempty" check:"bytes=128"`
	WaitForCompletion     *bool            `json:"wait_for_completion,omitempty" default:"true"`
}

// SetLimitsRequest changes a device's limits; what is absent stays as it is.
type SetLimitsRequest struct {
	DeviceID        string        `json:"device_id" check:"required,bytes=128"`
	LimitBytes      *int64        `json:"limit_bytes,omitempty" check:"min=0,max=1152921504606846976"`
	ModelLimitBytes *int64        `json:"model_limit_bytes,omitempty" mb:"model_limit_mb" check:"min=0,max=1152921504606846976"`
	ReserveBytes    *int64        `json:"reserve_bytes,omitempty" check:"min=0,max=1152921504606846976"`
	Thresholds      *Thresholds   `json:"thresholds,omitempty"`
	Tenant          *TenantLimits `json:"tenant,omitempty" unbuilt:"true"`
}

// LoadModelRequest loads a model, or joins its load, or takes what is loaded.
type LoadModelRequest struct {
	Name string `json:"name" check:"required"`
	// Path may be empty for a model that the node knows, and is with a FileClaim.
	Path string `json:"path,omitempty" check:"bytes=4096"`
	// FileClaim stands for a file that was offered on the data socket.
	FileClaim          string `json:"file_claim,omitempty" check:"bytes=512"`
	Type               string `json:"type,omitempty" check:"bytes=64"`
	DeviceID           string `json:"device_id,omitempty" check:"bytes=128"`
	EstimatedSizeBytes *int64 `json:"estimated_size_bytes,omitempty" mb:"estimated_size_mb" check:"min=0,max=1152921504606846976"`
	Shared             bool   `json:"shared,omitempty"`
	Priority           int    `json:"priority,omitempty" check:"min=-1000000,max=1000000"`
	Pinned             bool   `json:"pinned,omitempty"`
	// KeepWarm keeps the RAM copy of a model that is loaded to a GPU.
	KeepWarm       *bool  `json:"keep_warm,omitempty" default:"true"`
	TimeoutSeconds *int64 `json:"timeout_seconds,omitempty" default:"120" check:"min=0,max=604800"`
}

// ModelNameAll stands for all models of the tenant in UnloadModelRequest.Name.
const ModelNameAll = "*"

// UnloadModelRequest unloads one model or, by ModelNameAll, all of the tenant's.
type UnloadModelRequest struct {
	Name       string   `json:"name" check:"required"`
	DeviceID   string   `json:"device_id,omitempty" check:"bytes=128"`
	To         UnloadTo `json:"to,omitempty" default:"drop" unbuilt:"ram"`
	Force      bool     `json:"force,omitempty"`
	DeadlineMs *int64   `json:"deadline_ms,omitempty" default:"2000" check:"min=0,max=600000"`
}

// AcquireModelRequest makes a reference that keeps a model from being evicted. It
// lives as long as its session or its lease.
type AcquireModelRequest struct {
	Name         string `json:"name" check:"required"`
	DeviceID     string `json:"device_id,omitempty" check:"bytes=128"`
	SessionID    string `json:"session_id,omitempty" check:"bytes=128"`
	LeaseSeconds *int64 `json:"lease_seconds,omitempty" check:"min=1,max=31536000"`
}

// ReleaseModelRequest gives a reference back. Name and DeviceID, where given, must
// agree with the reference.
type ReleaseModelRequest struct {
	ReferenceID string `json:"reference_id" check:"required,bytes=128"`
	Name        string `json:"name,omitempty"`
	DeviceID    string `json:"device_id,omitempty" check:"bytes=128"`
	SessionID   string `json:"session_id,omitempty" check:"bytes=128"`
}

// GetModelInfoRequest describes one model or, with an empty Name, all.
type GetModelInfoRequest struct {
	Name           string `json:"name,omitempty"`
	IncludeTensors bool   `json:"include_tensors,omitempty"`
	Limit          *int   `json:"limit,omitempty" default:"100" check:"min=1,max=1000"`
	Cursor         string `json:"cursor,omitempty" check:"bytes=512"`
}

// ModelStatusRequest asks for the models' account; an empty DeviceID means every device.
type ModelStatusRequest struct {
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// ModelOptimizeRequest releases models until every given target holds.
type ModelOptimizeRequest struct {
	DeviceID              string           `json:"device_id,omitempty" check:"bytes=128"`
	TargetPressureLevel   PressureLevel    `json:"target_pressure_level,omitempty" default:"moderate"`
	TargetUsagePercentage *float64         `json:"target_usage_percentage,omitempty" check:"min=0,max=100"`
	Strategy              EvictionStrategy `json:"strategy,omitempty" alias:"optimization_type" default:"cost"`
	MaxModelsToUnload     *int             `json:"max_models_to_unload,omitempty" check:"min=0,max=1000000"`
	MinMemoryToFree       *int64           `json:"min_memory_to_free,omitempty" check:"min=0,max=1152921504606846976"`
	ForceOptimization     bool             `json:"force_optimization,omitempty" alias:"force"`
	ExcludeModels         []string         `json:"exclude_models,omitempty"`
	MaxOptimizationTimeMs *int64           `json:"max_optimization_time_ms,omitempty" default:"5000" check:"min=1,max=3600000"`
}

// CleanupRequest unloads the tenant's models and frees its non-persistent grants.
type CleanupRequest struct {
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	Force    bool   `json:"force,omitempty"`
	Confirm  bool   `json:"confirm" check:"required"`
}

// GetPressureRequest asks for the level of one device or of all.
type GetPressureRequest struct {
	DeviceID string `json:"device_id,omitempty" default:"all" check:"bytes=128"`
}

// AnalyticsRequest asks for what happened over a window.
type AnalyticsRequest struct {
	DeviceID          string `json:"device_id,omitempty" check:"bytes=128"`
	WindowSeconds     *int64 `json:"window_seconds,omitempty" default:"3600" check:"min=1,max=31536000"`
	ResolutionSeconds *int64 `json:"resolution_seconds,omitempty" check:"min=1,max=31536000"`
}

// OptimizationRecsRequest asks what could be done; an empty DeviceID means every device.
type OptimizationRecsRequest struct {
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// ListDevicesRequest has no fields.
type ListDevicesRequest struct{}
