package schemas

import "time"

// Event is one event as it is published. Whoever makes it sets Event, Subject and
// Data; the publisher fills in the rest. No claim is ever in an event.
type Event struct {
	// Event is the kind.
	Event EventKind `json:"event"`
	// Subject is where it goes; it is not part of the message.
	Subject string `json:"-"`
	// Tenant is whose event it is, where Data does not say: then no other tenant hears of it.
	Tenant  string `json:"-"`
	EventID string `json:"event_id"`
	// Sequence counts per Subject and BootID from 1, without gaps.
	Sequence  uint64    `json:"sequence"`
	BootID    string    `json:"boot_id"`
	Node      string    `json:"node"`
	Timestamp time.Time `json:"timestamp"`
	// Data is one of the data types of this file, by value or by pointer. It must not
	// be changed once the event is given to the publisher.
	Data any `json:"data"`
}

// EventKind names what happened.
type EventKind string

// The kinds of events, by the subject they are published on.
const (
	// On PressureSubject and TenantPressureSubject; Data is Pressure.
	EventPressureChanged  EventKind = "pressure_changed"
	EventPressureReminder EventKind = "pressure_reminder"

	// On AllocationSubject; Data is AllocationBatch.
	EventAllocated   EventKind = "allocated"
	EventDeallocated EventKind = "deallocated"
	EventQueued      EventKind = "queued"
	EventRefused     EventKind = "refused"
	EventExpired     EventKind = "expired"
	EventMoved       EventKind = "moved"
	EventZombie      EventKind = "zombie"
	EventConfirmed   EventKind = "confirmed"
	// EventBatch is an allocation batch whose items are of several kinds; each item
	// names its own.
	EventBatch EventKind = "batch"

	// On ModelSubject; Data is ModelEvent.
	EventModelLoading          EventKind = "loading"
	EventModelLoadProgress     EventKind = "load_progress"
	EventModelLoaded           EventKind = "loaded"
	EventModelPromoted         EventKind = "promoted"
	EventModelDemoted          EventKind = "demoted"
	EventModelReleaseRequested EventKind = "release_requested"
	EventModelUnloaded         EventKind = "unloaded"
	EventModelLoadFailed       EventKind = "load_failed"

	// On TransferSubject and, the first and third, on OptimizationSubject; Data is
	// Operation or OptimizationEvent. EventCompleted and EventFailed also on
	// CommandEventSubject with CommandEvent, EventStarted on NodeSubject with NodeEvent.
	EventStarted   EventKind = "started"
	EventProgress  EventKind = "progress"
	EventCompleted EventKind = "completed"
	EventFailed    EventKind = "failed"
	EventCancelled EventKind = "cancelled"

	// On NodeSubject; Data is NodeEvent.
	EventRestored   EventKind = "restored"
	EventDrift      EventKind = "drift"
	EventDeviceLost EventKind = "device_lost"
	EventDraining   EventKind = "draining"
	EventStopped    EventKind = "stopped"
	// A warning came into force, or is over; NodeEvent.Warning says which.
	EventWarningRaised  EventKind = "warning_raised"
	EventWarningCleared EventKind = "warning_cleared"

	// On any kept subject; Data is Gap.
	EventGap EventKind = "gap"

	// On HeartbeatSubject; Data is Heartbeat.
	EventHeartbeat EventKind = "heartbeat"
)

// AllocationBatch is the data of every allocation event, in the order of what
// happened. The publisher may join batches of one subject.
type AllocationBatch struct {
	Items []AllocationItem `json:"items"`
}

// AllocationItem is one thing that happened to one grant or request.
type AllocationItem struct {
	Event        EventKind `json:"event"`
	AllocationID string    `json:"allocation_id,omitempty"`
	OperationID  string    `json:"operation_id,omitempty"`
	RequestID    string    `json:"request_id,omitempty"`
	DeviceID     string    `json:"device_id"`
	Tenant       string    `json:"tenant"`
	SizeBytes    int64     `json:"size_bytes"`
	GrantedBytes int64     `json:"granted_bytes,omitempty"`
	Class        Class     `json:"class,omitempty"`
	Purpose      string    `json:"purpose,omitempty"`
	ModelName    string    `json:"model_name,omitempty"`
	SessionID    string    `json:"session_id,omitempty"`
	PID          int       `json:"pid,omitempty"`
	// Position is the place in the queue, from 1.
	Position int     `json:"position,omitempty"`
	QueuedMs float64 `json:"queued_ms,omitempty"`
	// Reason says why, for what was queued, refused, expired or forced.
	Reason string `json:"reason,omitempty"`
	// ErrorCode is set for what was refused.
	ErrorCode Code      `json:"error_code,omitempty"`
	Timestamp time.Time `json:"timestamp"`
}

// ModelEvent is the data of every model event.
type ModelEvent struct {
	Name      string `json:"name"`
	Version   string `json:"version,omitempty"`
	ContentID string `json:"content_id,omitempty"`
	Tenant    string `json:"tenant"`
	DeviceID  string `json:"device_id"`
	Tier      Tier   `json:"tier,omitempty"`
	// SourceTier is where the bytes came from.
	SourceTier               Tier       `json:"source_tier,omitempty"`
	State                    ModelState `json:"state,omitempty"`
	RequestID                string     `json:"request_id,omitempty"`
	OperationID              string     `json:"operation_id,omitempty"`
	SizeBytes                int64      `json:"size_bytes"`
	BytesDone                int64      `json:"bytes_done,omitempty"`
	BytesTotal               int64      `json:"bytes_total,omitempty"`
	ProgressPercentage       float64    `json:"progress_percentage,omitempty"`
	ThroughputBytesPerSecond float64    `json:"throughput_bytes_per_second,omitempty"`
	DurationMs               float64    `json:"duration_ms,omitempty"`
	FreedBytes               int64      `json:"freed_bytes,omitempty"`
	Readers                  int        `json:"readers,omitempty"`
	Reason                   string     `json:"reason,omitempty"`
	ErrorCode                Code       `json:"error_code,omitempty"`
	ErrorMessage             string     `json:"error_message,omitempty"`
	// ReadersOf are the readers of each tenant where the model is shared: who reads it hears
	// of it too. They are not part of the message.
	ReadersOf map[string]int `json:"-"`
}

// OptimizationEvent is the data of an optimization's events: why, what, how much,
// how long. What it did is there when it is completed.
type OptimizationEvent struct {
	OptimizationID string `json:"optimization_id"`
	DeviceID       string `json:"device_id"`
	Reason         string `json:"reason"`
	// Cause is the reason for programs in this process; it is not part of the message.
	Cause       OptimizationCause  `json:"-"`
	RequestID   string             `json:"request_id,omitempty"`
	EpisodeID   string             `json:"episode_id,omitempty"`
	Strategy    EvictionStrategy   `json:"strategy,omitempty"`
	TargetBytes int64              `json:"target_bytes"`
	FreedBytes  int64              `json:"freed_bytes"`
	Evicted     []Eviction         `json:"evicted"`
	Steps       []OptimizationStep `json:"steps,omitempty"`
	DurationMs  float64            `json:"duration_ms,omitempty"`
	// ShortfallBytes is what could not be freed.
	ShortfallBytes int64 `json:"shortfall_bytes,omitempty"`
}

// OptimizationCause is why room is made.
type OptimizationCause uint8

// The causes.
const (
	CauseOfRequest  OptimizationCause = iota // a request waits for room
	CauseOfPressure                          // the level is high
	CauseOfCommand                           // a client asked for it
)

// CommandEvent is the outcome of a command that had no reply subject: Result or the error.
type CommandEvent struct {
	RequestID    string         `json:"request_id"`
	Action       Action         `json:"action"`
	Tenant       string         `json:"tenant"`
	Result       any            `json:"result,omitempty"`
	ErrorCode    Code           `json:"error_code,omitempty"`
	ErrorMessage string         `json:"error_message,omitempty"`
	StatusCode   int            `json:"status_code,omitempty"`
	Details      map[string]any `json:"details,omitempty"`
}

// NodeEvent is the data of every node event.
type NodeEvent struct {
	Version string `json:"version,omitempty"`
	PID     int    `json:"pid,omitempty"`
	// DeviceID and DriftBytes are for drift and device_lost.
	DeviceID   string `json:"device_id,omitempty"`
	DriftBytes int64  `json:"drift_bytes,omitempty"`
	Reason     string `json:"reason,omitempty"`
	// Restored is for restored and stopped: what was, or stays, kept.
	Restored *Restored `json:"restored,omitempty"`
	Devices  []Device  `json:"devices,omitempty"`
	// Warning is for warning_raised and warning_cleared.
	Warning *HealthWarning `json:"warning,omitempty"`
}

// Restored says what a take-over kept and lost.
type Restored struct {
	Grants         int      `json:"grants"`
	GrantedBytes   int64    `json:"granted_bytes"`
	Models         int      `json:"models"`
	Segments       int      `json:"segments"`
	Sessions       int      `json:"sessions"`
	Queued         int      `json:"queued"`
	LostGrants     []string `json:"lost_grants"`
	LostModels     []string `json:"lost_models"`
	LostSessions   int      `json:"lost_sessions"`
	DurationMs     float64  `json:"duration_ms"`
	PreviousBootID string   `json:"previous_boot_id"`
}

// Gap says which sequences of its subject were dropped, both ends included.
type Gap struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// DeviceBeat is one device in a heartbeat. Sequence is that of its last pressure change.
type DeviceBeat struct {
	DeviceID      string        `json:"device_id"`
	PressureLevel PressureLevel `json:"pressure_level"`
	Sequence      uint64        `json:"sequence"`
	Health        Health        `json:"health"`
}

// Heartbeat is the data of a heartbeat; its boot_id is the event's.
type Heartbeat struct {
	Devices       []DeviceBeat `json:"devices"`
	UptimeSeconds float64      `json:"uptime_seconds"`
	Draining      bool         `json:"draining,omitempty"`
}
