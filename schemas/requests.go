package schemas

// The requests of every action. doc.go says what the tags mean; package codec acts
// on them. wait_ms and dry_run, which every changing action takes, are not fields
// of these types: the decoder takes them out.

// GetStatusRequest asks for the state of one device or of all.
type GetStatusRequest struct {
	// One device, or all: the sums, and each.
	DeviceID string `json:"device_id,omitempty" default:"all" check:"bytes=128"`
	// List the grants.
	IncludeAllocations *bool `json:"include_allocations,omitempty" default:"true"`
	// Give the counters.
	IncludeUsageStats *bool `json:"include_usage_stats,omitempty" default:"true"`
	// Say how broken up the free bytes are.
	IncludeFragmentation bool `json:"include_fragmentation,omitempty"`
	// How many grants to list; next_cursor goes on with get_allocations.
	Limit *int `json:"limit,omitempty" default:"100" check:"min=1,max=1000"`
}

// GetUsageRequest asks who uses how much; an empty DeviceID means every device.
type GetUsageRequest struct {
	// One device.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// GetAllocationsRequest lists grants; an empty filter matches everything.
type GetAllocationsRequest struct {
	// Only on this device.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// Only of this tenant; for operators.
	Tenant string `json:"tenant,omitempty" check:"bytes=64"`
	// Only of this class.
	Class Class `json:"class,omitempty"`
	// Only with exactly this purpose.
	Purpose string `json:"purpose,omitempty"`
	// Only the memory of this model.
	ModelName string `json:"model_name,omitempty"`
	// Only in this state. Requests that wait are queued, under the ids that their grants will
	// have; without a status they are left out.
	Status AllocationStatus `json:"status,omitempty"`
	// How many on a page.
	Limit *int `json:"limit,omitempty" default:"100" check:"min=1,max=1000"`
	// The next_cursor of the page before.
	Cursor string `json:"cursor,omitempty" check:"bytes=512"`
}

// GetAllocationRequest asks for one grant.
type GetAllocationRequest struct {
	// Which grant.
	AllocationID string `json:"allocation_id" check:"required,bytes=128"`
	// List its events too.
	IncludeHistory bool `json:"include_history,omitempty"`
}

// AllocateRequest asks for memory.
type AllocateRequest struct {
	// DeviceID may be empty where the node has one device of the asked type.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// How much; granted_bytes of the reply says what the device gave up for it.
	SizeBytes int64 `json:"size_bytes" check:"required,positive,max=1152921504606846976"`
	// AllocationType is empty when the client did not say; else it must fit the device.
	AllocationType DeviceType `json:"allocation_type,omitempty" alias:"memory_type"`
	// What the memory is for: scratch and state can be mapped, state outlives its owner, a reservation
	// is counted only. weights is for models.
	Class Class `json:"class,omitempty" default:"scratch"`
	// Where in its segment the grant may begin.
	Alignment int64 `json:"alignment,omitempty" check:"pow2,max=2097152"`
	// A word of the client's own, to find the grant by.
	Purpose string `json:"purpose,omitempty"`
	// Outlive the owner's session; it ends by deallocate, or with its lease.
	Persistent bool `json:"persistent,omitempty"`
	// TimeoutSeconds is the longest stay in the queue; 0 means don't queue.
	TimeoutSeconds *int64 `json:"timeout_seconds,omitempty" default:"30" check:"min=0,max=604800"`
	// LeaseSeconds is absent for a grant without a lease: it lives until it or its owner's session ends.
	LeaseSeconds *int64 `json:"lease_seconds,omitempty" check:"min=1,max=31536000"`
	// Priority: higher first.
	Priority int `json:"priority,omitempty" check:"min=-1000000,max=1000000"`
	// Bind the grant to this session of the data socket.
	SessionID string `json:"session_id,omitempty" check:"bytes=128"`
	// PID is the process whose tree a reservation follows.
	PID *int `json:"pid,omitempty" check:"min=1,max=4194304"`
	// Fill with zeros even what was the owner's own before; memory from another owner is always zero.
	Clear bool `json:"clear,omitempty"`
}

// DeallocateRequest gives a grant back.
type DeallocateRequest struct {
	// Which grant.
	AllocationID string `json:"allocation_id" check:"required,bytes=128"`
	// Also where others still map it: their bytes are revoked.
	Force bool `json:"force,omitempty"`
	// How long those who map it have to let go, in milliseconds.
	DeadlineMs *int64 `json:"deadline_ms,omitempty" default:"2000" check:"min=0,max=600000"`
}

// GetHandleRequest asks for a fresh claim on a grant or a model, exactly one of them.
type GetHandleRequest struct {
	// Which grant.
	AllocationID string `json:"allocation_id,omitempty" check:"bytes=128"`
	// Which model.
	ModelName string `json:"model_name,omitempty"`
	// DeviceID says which copy of a model.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// RenewRequest extends leases of grants and of model references.
type RenewRequest struct {
	// Which grants.
	AllocationIDs []string `json:"allocation_ids,omitempty" check:"bytes=128"`
	// Which references to models.
	ReferenceIDs []string `json:"reference_ids,omitempty" check:"bytes=128"`
	// How long from now, in seconds.
	LeaseSeconds int64 `json:"lease_seconds" check:"required,min=1,max=31536000"`
}

// ClearRequest fills a grant with one byte, or, with DeviceID and Confirm, releases
// everything of the caller's tenant on a device; an operator's, everything of everybody.
type ClearRequest struct {
	// Which grant to fill.
	AllocationID string `json:"allocation_id,omitempty" check:"bytes=128"`
	// The first byte to fill.
	Offset int64 `json:"offset,omitempty" check:"min=0,max=1152921504606846976"`
	// How many bytes; to the grant's end where absent.
	SizeBytes *int64 `json:"size_bytes,omitempty" check:"positive,max=1152921504606846976"`
	// The byte to fill with.
	FillValue int `json:"fill_value,omitempty" check:"min=0,max=255"`
	// The device to release everything on: of the caller's tenant; for operators, everyone's.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// Must be true with device_id.
	Confirm bool `json:"confirm,omitempty"`
}

// CopyRequest copies bytes between two grants of one device.
type CopyRequest struct {
	// The grant to read.
	SourceAllocationID string `json:"source_allocation_id" check:"required,bytes=128"`
	// The grant to write, on the same device; may be the same grant where the ranges do not overlap.
	TargetAllocationID string `json:"target_allocation_id" check:"required,bytes=128"`
	// The first byte to read.
	SourceOffset int64 `json:"source_offset,omitempty" check:"min=0,max=1152921504606846976"`
	// The first byte to write.
	TargetOffset int64 `json:"target_offset,omitempty" check:"min=0,max=1152921504606846976"`
	// How many bytes; what both have from there on where absent.
	SizeBytes *int64 `json:"size_bytes,omitempty" check:"positive,max=1152921504606846976"`
}

// TransferRequest copies or moves a grant to another device.
type TransferRequest struct {
	// The grant to copy or move.
	AllocationID string `json:"allocation_id" check:"required,bytes=128"`
	// Where to.
	TargetDeviceID string `json:"target_device_id" check:"required,bytes=128"`
	// SourceDeviceID must agree with the grant's device where it is given.
	SourceDeviceID string `json:"source_device_id,omitempty" check:"bytes=128"`
	// How many bytes from its start; all where absent.
	SizeBytes *int64 `json:"size_bytes,omitempty" check:"positive,max=1152921504606846976"`
	// Release the source when the copy is done.
	Move bool `json:"move,omitempty"`
}

// GetTransferRequest asks how a transfer goes.
type GetTransferRequest struct {
	// Which transfer: the transfer_id that transfer answered.
	TransferID string `json:"transfer_id" check:"required,bytes=128"`
}

// CancelTransferRequest stops a transfer.
type CancelTransferRequest struct {
	// Which transfer: the transfer_id that transfer answered.
	TransferID string `json:"transfer_id" check:"required,bytes=128"`
}

// GetOperationRequest asks how a command goes, by one of its two ids, and waits up
// to WaitMs for its end. A command that was answered at once is found by the RequestID that
// its client chose, as long as its outcome is remembered; of one that failed at once nothing
// is: it had no effect, and can be sent again. By RequestID it needs an envelope around it: a bare
// {"request_id": …} is itself an envelope.
type GetOperationRequest struct {
	// Which operation.
	OperationID string `json:"operation_id,omitempty" check:"bytes=128"`
	// The request_id of the command.
	RequestID string `json:"request_id,omitempty" check:"bytes=128"`
	// How long to wait for its end, in milliseconds.
	WaitMs int64 `json:"wait_ms,omitempty" check:"min=0,max=600000"`
}

// CancelOperationRequest stops a command, by one of its two ids.
type CancelOperationRequest struct {
	// Which operation.
	OperationID string `json:"operation_id,omitempty" check:"bytes=128"`
	// The request_id of the command.
	RequestID string `json:"request_id,omitempty" check:"bytes=128"`
	// How long to wait for its end, in milliseconds.
	WaitMs int64 `json:"wait_ms,omitempty" check:"min=0,max=600000"`
}

// GetQueueRequest lists who waits; an empty DeviceID means every device.
type GetQueueRequest struct {
	// One device.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// DefragmentRequest moves blocks together.
type DefragmentRequest struct {
	// Which device.
	DeviceID string `json:"device_id" check:"required,bytes=128"`
	// How far to go: incremental moves what pays, full whatever can be moved.
	Strategy DefragmentStrategy `json:"strategy,omitempty" default:"incremental"`
	// Stop before more than this is moved.
	MaxBytesToMove *int64 `json:"max_bytes_to_move,omitempty" check:"min=0,max=1152921504606846976"`
	// Stop after this time, in milliseconds.
	MaxDurationMs *int64 `json:"max_duration_ms,omitempty" check:"min=1,max=3600000"`
}

// OptimizeRequest brings a device's use down to a target.
type OptimizeRequest struct {
	// Which device.
	DeviceID string `json:"device_id" check:"required,bytes=128"`
	// What may be done: auto chooses.
	OptimizationType OptimizationType `json:"optimization_type,omitempty" default:"auto"`
	// Also where the target holds already.
	Force bool `json:"force,omitempty"`
	// The use to come down to, in percent of the limit.
	TargetUsagePercentage *float64 `json:"target_usage_percentage,omitempty" default:"80" check:"min=0,max=100"`
	// Grants that must stay where they are.
	PreserveAllocations []string `json:"preserve_allocations,omitempty" check:"bytes=128"`
	// Answer when it is done; else at once, as running.
	WaitForCompletion *bool `json:"wait_for_completion,omitempty" default:"true"`
}

// SetLimitsRequest changes a device's limits; what is absent stays as it is.
type SetLimitsRequest struct {
	// Which device.
	DeviceID string `json:"device_id" check:"required,bytes=128"`
	// The most that the node gives out and tolerates in use; 0 takes the limit off.
	LimitBytes *int64 `json:"limit_bytes,omitempty" check:"min=0,max=1152921504606846976"`
	// The most that models may take.
	ModelLimitBytes *int64 `json:"model_limit_bytes,omitempty" mb:"model_limit_mb" check:"min=0,max=1152921504606846976"`
	// What is kept free of the physical memory.
	ReserveBytes *int64 `json:"reserve_bytes,omitempty" check:"min=0,max=1152921504606846976"`
	// Where the pressure levels are entered and left.
	Thresholds *Thresholds `json:"thresholds,omitempty"`
	// One tenant's quota on the device.
	Tenant *TenantLimits `json:"tenant,omitempty"`
}

// LoadModelRequest loads a model, or joins its load, or takes what is loaded.
type LoadModelRequest struct {
	// What the model is called from now on.
	Name string `json:"name" check:"required"`
	// Path may be empty for a model that the node knows, and is with a FileClaim.
	Path string `json:"path,omitempty" check:"bytes=4096"`
	// FileClaim stands for a file that was offered on the data socket.
	FileClaim string `json:"file_claim,omitempty" check:"bytes=512"`
	// What it is: unet, vae, encoder, llm, lora, controlnet, other or any word.
	Type string `json:"type,omitempty" check:"bytes=64"`
	// Where to; the node chooses where absent.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// What the client thinks it takes: so much is reserved until the file says better. What the node
	// remembers of the model goes before it.
	EstimatedSizeBytes *int64 `json:"estimated_size_bytes,omitempty" mb:"estimated_size_mb" check:"min=0,max=1152921504606846976"`
	// Visible to every tenant.
	Shared bool `json:"shared,omitempty"`
	// Higher is served first, and evicted last.
	Priority int `json:"priority,omitempty" check:"min=-1000000,max=1000000"`
	// Never evicted, only unloaded.
	Pinned bool `json:"pinned,omitempty"`
	// KeepWarm keeps the RAM copy of a model that is loaded to a GPU.
	KeepWarm *bool `json:"keep_warm,omitempty" default:"true"`
	// Verify compares every byte that is resident with the file, whether the model is loaded now
	// or was before: INVALID_MODEL where they differ, MODEL_CONFLICT where the file is another
	// by now, FILE_NOT_READABLE where there is none: a model that was offered is verified when its
	// file is offered again with this, or by hashes.
	Verify bool `json:"verify,omitempty"`
	// Hashes compares the resident bytes of tensors with their SHA-256 sums: for that no file is
	// needed. Each is what sha256sum would write of a file with the tensor's bytes: 64 hexadecimal
	// digits, two spaces, the tensor's name. INVALID_MODEL where one differs.
	Hashes []string `json:"hashes,omitempty" check:"bytes=1024"`
	// The longest stay in the queue, in seconds; 0 means don't queue.
	TimeoutSeconds *int64 `json:"timeout_seconds,omitempty" default:"120" check:"min=0,max=604800"`
	// The model is acquired too, as by acquire_model: the reference ends with this session.
	SessionID string `json:"session_id,omitempty" check:"bytes=128"`
}

// ModelNameAll stands for all models of the tenant in UnloadModelRequest.Name.
const ModelNameAll = "*"

// UnloadModelRequest unloads one model or, by ModelNameAll, all of the tenant's.
type UnloadModelRequest struct {
	// Which model; * means all of the tenant's.
	Name string `json:"name" check:"required"`
	// Only its copy there.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// Drop the bytes, or keep a copy in main memory: the next load takes it from there.
	To UnloadTo `json:"to,omitempty" default:"drop"`
	// Also where readers hold it: their mappings are revoked.
	Force bool `json:"force,omitempty"`
	// How long readers have to let go, in milliseconds.
	DeadlineMs *int64 `json:"deadline_ms,omitempty" default:"2000" check:"min=0,max=600000"`
}

// AcquireModelRequest makes a reference that keeps a model from being evicted. It
// lives as long as its session or its lease.
type AcquireModelRequest struct {
	// Which model; a known one that is not loaded is loaded.
	Name string `json:"name" check:"required"`
	// Where.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// The reference ends with this session.
	SessionID string `json:"session_id,omitempty" check:"bytes=128"`
	// The reference ends after this time, in seconds, unless it is renewed.
	LeaseSeconds *int64 `json:"lease_seconds,omitempty" check:"min=1,max=31536000"`
}

// ReleaseModelRequest gives a reference back. Name and DeviceID, where given, must
// agree with the reference.
type ReleaseModelRequest struct {
	// The reference_id that acquire_model answered.
	ReferenceID string `json:"reference_id" check:"required,bytes=128"`
	// The model.
	Name string `json:"name,omitempty"`
	// The device.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// The session.
	SessionID string `json:"session_id,omitempty" check:"bytes=128"`
}

// GetModelInfoRequest describes one model or, with an empty Name, all.
type GetModelInfoRequest struct {
	// Which model.
	Name string `json:"name,omitempty"`
	// List its tensors.
	IncludeTensors bool `json:"include_tensors,omitempty"`
	// How many on a page.
	Limit *int `json:"limit,omitempty" default:"100" check:"min=1,max=1000"`
	// The next_cursor of the page before.
	Cursor string `json:"cursor,omitempty" check:"bytes=512"`
}

// ModelStatusRequest asks for the models' account; an empty DeviceID means every device.
type ModelStatusRequest struct {
	// One device.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// ModelOptimizeRequest releases models until every given target holds.
type ModelOptimizeRequest struct {
	// One device; every device where absent.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// The level to come down to.
	TargetPressureLevel PressureLevel `json:"target_pressure_level,omitempty" default:"moderate"`
	// The use to come down to, in percent of the limit.
	TargetUsagePercentage *float64 `json:"target_usage_percentage,omitempty" check:"min=0,max=100"`
	// Which models go first.
	Strategy EvictionStrategy `json:"strategy,omitempty" alias:"optimization_type" default:"cost"`
	// Unload no more than these.
	MaxModelsToUnload *int `json:"max_models_to_unload,omitempty" check:"min=0,max=1000000"`
	// Free at least this many bytes.
	MinMemoryToFree *int64 `json:"min_memory_to_free,omitempty" check:"min=0,max=1152921504606846976"`
	// Also where the targets hold already, and of models that are read.
	ForceOptimization bool `json:"force_optimization,omitempty" alias:"force"`
	// Names of models that must stay.
	ExcludeModels []string `json:"exclude_models,omitempty"`
	// Stop after this time, in milliseconds.
	MaxOptimizationTimeMs *int64 `json:"max_optimization_time_ms,omitempty" default:"5000" check:"min=1,max=3600000"`
}

// CleanupRequest unloads the tenant's models and frees its non-persistent grants.
type CleanupRequest struct {
	// One device; every device where absent.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// Also what others still hold: it is revoked.
	Force bool `json:"force,omitempty"`
	// Must be true.
	Confirm bool `json:"confirm" check:"required"`
}

// GetPressureRequest asks for the level of one device or of all.
type GetPressureRequest struct {
	// One device, or all.
	DeviceID string `json:"device_id,omitempty" default:"all" check:"bytes=128"`
}

// AnalyticsRequest asks for what happened over a window.
type AnalyticsRequest struct {
	// One device; every device where absent.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
	// How far to look back, in seconds.
	WindowSeconds *int64 `json:"window_seconds,omitempty" default:"3600" check:"min=1,max=31536000"`
	// The time between two points of the series, in seconds; the node chooses where absent.
	ResolutionSeconds *int64 `json:"resolution_seconds,omitempty" check:"min=1,max=31536000"`
}

// OptimizationRecsRequest asks what could be done; an empty DeviceID means every device.
type OptimizationRecsRequest struct {
	// One device.
	DeviceID string `json:"device_id,omitempty" check:"bytes=128"`
}

// ListDevicesRequest has no fields.
type ListDevicesRequest struct{}
