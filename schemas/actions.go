package schemas

import "reflect"

// Action is the name of a command without its subject prefix.
type Action string

// The actions of the contract.
const (
	ActionGetStatus        Action = "get_status"
	ActionGetUsage         Action = "get_usage"
	ActionGetAllocations   Action = "get_allocations"
	ActionGetAllocation    Action = "get_allocation"
	ActionAllocate         Action = "allocate"
	ActionDeallocate       Action = "deallocate"
	ActionGetHandle        Action = "get_handle"
	ActionRenew            Action = "renew"
	ActionClear            Action = "clear"
	ActionCopy             Action = "copy"
	ActionTransfer         Action = "transfer"
	ActionGetTransfer      Action = "get_transfer"
	ActionCancelTransfer   Action = "cancel_transfer"
	ActionGetOperation     Action = "get_operation"
	ActionCancelOperation  Action = "cancel_operation"
	ActionGetQueue         Action = "get_queue"
	ActionDefragment       Action = "defragment"
	ActionOptimize         Action = "optimize"
	ActionSetLimits        Action = "set_limits"
	ActionLoadModel        Action = "load_model"
	ActionUnloadModel      Action = "unload_model"
	ActionAcquireModel     Action = "acquire_model"
	ActionReleaseModel     Action = "release_model"
	ActionGetModelInfo     Action = "get_model_info"
	ActionModelStatus      Action = "model_status"
	ActionModelOptimize    Action = "model_optimize"
	ActionCleanup          Action = "cleanup"
	ActionGetPressure      Action = "get_pressure"
	ActionAnalytics        Action = "analytics"
	ActionOptimizationRecs Action = "optimization_recs"
	ActionListDevices      Action = "list_devices"

	// ActionCommand is the subject that takes any action by its envelope. It has no spec.
	ActionCommand Action = "command"
	// ActionGetModelStatus is the older name of ActionModelStatus; Lookup maps it.
	ActionGetModelStatus Action = "get_model_status"
)

// Lane is the mailbox lane of a command. Releases go before grants, grants before
// queries, so that a node full of requests can still be relieved.
type Lane string

// The lanes that commands use.
const (
	LaneRelease Lane = "release"
	LaneGrant   Lane = "grant"
	LaneQuery   Lane = "query"
)

// Role is the least role that may give a command where roles are configured.
type Role string

// The roles, each allowed what the one before it is.
const (
	RoleReader   Role = "reader"
	RoleClient   Role = "client"
	RoleOperator Role = "operator"
)

// Allows reports whether who has the role may give a command that asks for another.
func (r Role) Allows(least Role) bool { return r.rank() >= least.rank() }

func (r Role) rank() int {
	switch r {
	case RoleReader:
		return 1
	case RoleClient:
		return 2
	case RoleOperator:
		return 3
	}
	return 0
}

// Spec is what there is to know about one action.
type Spec struct {
	Action Action
	// Aliases are older names of the action, served on their own subjects too.
	Aliases []Action
	// Request and Reply are the data types.
	Request, Reply reflect.Type
	// Changing actions take wait_ms and dry_run, and are idempotent by request_id.
	Changing bool
	Lane     Lane
	Role     Role
	Summary  string
}

// NewRequest makes an empty request: a pointer to the request type.
func (s *Spec) NewRequest() any { return reflect.New(s.Request).Interface() }

// NewReply makes an empty reply: a pointer to the reply type.
func (s *Spec) NewReply() any { return reflect.New(s.Reply).Interface() }

// All returns every action in the contract's order. The caller must not change it.
func All() []*Spec { return specs }

// Lookup finds an action by its name or its older name.
func Lookup(a Action) (*Spec, bool) {
	s, ok := specByName[a]
	return s, ok
}

func spec[Request, Reply any](a Action, lane Lane, role Role, changing bool, summary string, aliases ...Action) *Spec {
	return &Spec{
		Action: a, Aliases: aliases, Changing: changing, Lane: lane, Role: role, Summary: summary,
		Request: reflect.TypeFor[Request](), Reply: reflect.TypeFor[Reply](),
	}
}

const (
	changes = true
	reads   = false
)

var specs = []*Spec{
	spec[GetStatusRequest, GetStatusReply](ActionGetStatus, LaneQuery, RoleReader, reads,
		"the state of one device or of all"),
	spec[GetUsageRequest, GetUsageReply](ActionGetUsage, LaneQuery, RoleReader, reads,
		"who uses how much"),
	spec[GetAllocationsRequest, GetAllocationsReply](ActionGetAllocations, LaneQuery, RoleReader, reads,
		"list grants"),
	spec[GetAllocationRequest, GetAllocationReply](ActionGetAllocation, LaneQuery, RoleReader, reads,
		"one grant"),
	spec[AllocateRequest, AllocateReply](ActionAllocate, LaneGrant, RoleClient, changes,
		"grant memory"),
	spec[DeallocateRequest, DeallocateReply](ActionDeallocate, LaneRelease, RoleClient, changes,
		"give a grant back"),
	spec[GetHandleRequest, GetHandleReply](ActionGetHandle, LaneQuery, RoleClient, reads,
		"a fresh claim on a grant or a model"),
	spec[RenewRequest, RenewReply](ActionRenew, LaneRelease, RoleClient, changes,
		"extend leases"),
	spec[ClearRequest, ClearReply](ActionClear, LaneGrant, RoleClient, changes,
		"fill a grant with one byte, or release everything on a device"),
	spec[CopyRequest, CopyReply](ActionCopy, LaneGrant, RoleClient, changes,
		"copy between two grants of a device"),
	spec[TransferRequest, TransferReply](ActionTransfer, LaneGrant, RoleClient, changes,
		"copy or move a grant to another device"),
	spec[GetTransferRequest, GetTransferReply](ActionGetTransfer, LaneQuery, RoleReader, reads,
		"how a transfer goes"),
	spec[CancelTransferRequest, CancelTransferReply](ActionCancelTransfer, LaneRelease, RoleClient, changes,
		"stop a transfer"),
	spec[GetOperationRequest, GetOperationReply](ActionGetOperation, LaneQuery, RoleReader, reads,
		"how a command goes, and its result"),
	spec[CancelOperationRequest, CancelOperationReply](ActionCancelOperation, LaneRelease, RoleClient, changes,
		"stop a command"),
	spec[GetQueueRequest, GetQueueReply](ActionGetQueue, LaneQuery, RoleReader, reads,
		"who waits, and for what"),
	spec[DefragmentRequest, DefragmentReply](ActionDefragment, LaneGrant, RoleOperator, changes,
		"move blocks together"),
	spec[OptimizeRequest, OptimizeReply](ActionOptimize, LaneRelease, RoleOperator, changes,
		"bring a device's use down"),
	spec[SetLimitsRequest, SetLimitsReply](ActionSetLimits, LaneRelease, RoleOperator, changes,
		"change a device's limits and thresholds"),
	spec[LoadModelRequest, LoadModelReply](ActionLoadModel, LaneGrant, RoleClient, changes,
		"load a model, once for everybody"),
	spec[UnloadModelRequest, UnloadModelReply](ActionUnloadModel, LaneRelease, RoleClient, changes,
		"unload a model"),
	spec[AcquireModelRequest, AcquireModelReply](ActionAcquireModel, LaneGrant, RoleClient, changes,
		"keep a model from being evicted"),
	spec[ReleaseModelRequest, ReleaseModelReply](ActionReleaseModel, LaneRelease, RoleClient, changes,
		"give a model reference back"),
	spec[GetModelInfoRequest, GetModelInfoReply](ActionGetModelInfo, LaneQuery, RoleReader, reads,
		"describe models"),
	spec[ModelStatusRequest, ModelStatusReply](ActionModelStatus, LaneQuery, RoleReader, reads,
		"the models' account", ActionGetModelStatus),
	spec[ModelOptimizeRequest, ModelOptimizeReply](ActionModelOptimize, LaneRelease, RoleOperator, changes,
		"release models until a target holds"),
	spec[CleanupRequest, CleanupReply](ActionCleanup, LaneRelease, RoleClient, changes,
		"unload the tenant's models and free its grants"),
	spec[GetPressureRequest, GetPressureReply](ActionGetPressure, LaneQuery, RoleReader, reads,
		"the pressure level of one device or of all"),
	spec[AnalyticsRequest, AnalyticsReply](ActionAnalytics, LaneQuery, RoleReader, reads,
		"what happened over a window"),
	spec[OptimizationRecsRequest, OptimizationRecsReply](ActionOptimizationRecs, LaneQuery, RoleReader, reads,
		"what could be done"),
	spec[ListDevicesRequest, ListDevicesReply](ActionListDevices, LaneQuery, RoleReader, reads,
		"list the node's devices"),
}

var specByName = func() map[Action]*Spec {
	m := make(map[Action]*Spec, len(specs)+1)
	for _, s := range specs {
		m[s.Action] = s
		for _, alias := range s.Aliases {
			m[alias] = s
		}
	}
	return m
}()
