package schemas

import (
	"fmt"
	"strings"
)

// Enum is implemented by every enumeration. Names lists the values as they are
// written on the wire; input is accepted in any letter case.
type Enum interface{ Names() []string }

// NumberedEnum is an Enum whose values may also be given as their index in Names.
type NumberedEnum interface {
	Enum
	Numbered()
}

// ParseEnum finds the value of T that s spells in any letter case.
func ParseEnum[T interface {
	~string
	Enum
}](s string) (T, error) {
	var zero T
	for _, name := range zero.Names() {
		if strings.EqualFold(name, s) {
			return T(name), nil
		}
	}
	return zero, fmt.Errorf("%q is none of %s", s, strings.Join(zero.Names(), ", "))
}

// DeviceType is the kind of memory that a device has.
type DeviceType string

// The device types; on input also the numbers 0–4 in this order.
const (
	DeviceTypeUnknown       DeviceType = "Unknown"
	DeviceTypeRAM           DeviceType = "RAM"
	DeviceTypeVRAM          DeviceType = "VRAM"
	DeviceTypeSharedMemory  DeviceType = "SharedMemory"
	DeviceTypeUnifiedMemory DeviceType = "UnifiedMemory"
)

var deviceTypeNames = []string{"Unknown", "RAM", "VRAM", "SharedMemory", "UnifiedMemory"}

// Names implements Enum.
func (DeviceType) Names() []string { return deviceTypeNames }

// Numbered implements NumberedEnum.
func (DeviceType) Numbered() {}

// ParseDeviceType accepts any letter case.
func ParseDeviceType(s string) (DeviceType, error) { return ParseEnum[DeviceType](s) }

// LeakKind is the rule by which something is suspected to leak.
type LeakKind string

// The kinds of leaks.
const (
	LeakUnused    LeakKind = "unused"     // nothing keeps it, and nobody has used it for 15 minutes
	LeakOwnerGone LeakKind = "owner_gone" // it outlived its owner, and nobody has used it for 15 minutes
	LeakGrowing   LeakKind = "growing"    // its owner's allocations only become more
)

var leakKindNames = []string{"unused", "owner_gone", "growing"}

// Names implements Enum.
func (LeakKind) Names() []string { return leakKindNames }

// Health is the state of a device.
type Health string

// The states of a device, from best to worst.
const (
	HealthHealthy  Health = "healthy"
	HealthDegraded Health = "degraded"
	HealthFailing  Health = "failing"
	HealthLost     Health = "lost"
)

var healthNames = []string{"healthy", "degraded", "failing", "lost"}

// Names implements Enum.
func (Health) Names() []string { return healthNames }

// Class says what a grant is for. Weights are granted only to models, never by allocate.
type Class string

// The classes of grants.
const (
	ClassScratch     Class = "scratch"
	ClassState       Class = "state"
	ClassReservation Class = "reservation"
	ClassWeights     Class = "weights"
)

var classNames = []string{"scratch", "state", "reservation", "weights"}

// Names implements Enum.
func (Class) Names() []string { return classNames }

// ParseClass accepts any letter case.
func ParseClass(s string) (Class, error) { return ParseEnum[Class](s) }

// AllocationStatus is where a grant is in its life.
type AllocationStatus string

// The states of a grant, in the order of its life.
const (
	AllocationQueued   AllocationStatus = "queued"
	AllocationActive   AllocationStatus = "active"
	AllocationRevoking AllocationStatus = "revoking"
	AllocationZombie   AllocationStatus = "zombie"
	AllocationReleased AllocationStatus = "released"
)

var allocationStatusNames = []string{"queued", "active", "revoking", "zombie", "released"}

// Names implements Enum.
func (AllocationStatus) Names() []string { return allocationStatusNames }

// MapMode is how a session maps a grant.
type MapMode string

// The mapping modes.
const (
	MapReadOnly  MapMode = "ro"
	MapReadWrite MapMode = "rw"
)

var mapModeNames = []string{"ro", "rw"}

// Names implements Enum.
func (MapMode) Names() []string { return mapModeNames }

// HandleKind says how the memory behind a handle is mapped.
type HandleKind string

// The kinds of handles.
const (
	HandleMemfd   HandleKind = "memfd"
	HandleCUDAVMM HandleKind = "cuda_vmm"
)

var handleKindNames = []string{"memfd", "cuda_vmm"}

// Names implements Enum.
func (HandleKind) Names() []string { return handleKindNames }

// PressureLevel is how near a device or a quota is to its limit.
type PressureLevel string

// The levels, rising.
const (
	PressureLow      PressureLevel = "low"
	PressureModerate PressureLevel = "moderate"
	PressureHigh     PressureLevel = "high"
	PressureCritical PressureLevel = "critical"
)

var pressureLevelNames = []string{"low", "moderate", "high", "critical"}

// Names implements Enum.
func (PressureLevel) Names() []string { return pressureLevelNames }

// ParsePressureLevel accepts any letter case.
func ParsePressureLevel(s string) (PressureLevel, error) { return ParseEnum[PressureLevel](s) }

// PressureCause is what changed a level.
type PressureCause string

// The causes of a change of level.
const (
	CauseGrant       PressureCause = "grant"
	CauseRelease     PressureCause = "release"
	CauseReservation PressureCause = "reservation"
	CauseForeign     PressureCause = "foreign"
	CauseLimitChange PressureCause = "limit_change"
	CauseStall       PressureCause = "stall"
	CauseForecast    PressureCause = "forecast"
	CauseDwell       PressureCause = "dwell"
	CauseSourceLost  PressureCause = "source_lost"
)

var pressureCauseNames = []string{"grant", "release", "reservation", "foreign", "limit_change", "stall",
	"forecast", "dwell", "source_lost"}

// Names implements Enum.
func (PressureCause) Names() []string { return pressureCauseNames }

// Quality says whether the outside figures of a pressure are current.
type Quality string

// The qualities of a pressure's outside figures.
const (
	QualityFresh Quality = "fresh"
	QualityStale Quality = "stale"
)

var qualityNames = []string{"fresh", "stale"}

// Names implements Enum.
func (Quality) Names() []string { return qualityNames }

// ModelState is where a model is in its life.
type ModelState string

// The states of a model.
const (
	ModelLoading  ModelState = "loading"
	ModelSealed   ModelState = "sealed"
	ModelRevoking ModelState = "revoking"
	ModelFailed   ModelState = "failed"
)

var modelStateNames = []string{"loading", "sealed", "revoking", "failed"}

// Names implements Enum.
func (ModelState) Names() []string { return modelStateNames }

// Tier is where a model's bytes are.
type Tier string

// The tiers, from the fastest to the slowest.
const (
	TierVRAM Tier = "vram"
	TierRAM  Tier = "ram"
	TierDisk Tier = "disk"
)

var tierNames = []string{"vram", "ram", "disk"}

// Names implements Enum.
func (Tier) Names() []string { return tierNames }

// UnloadTo says where an unloaded model goes.
type UnloadTo string

// The places an unloaded model can go.
const (
	UnloadToDrop UnloadTo = "drop"
	UnloadToRAM  UnloadTo = "ram"
)

var unloadToNames = []string{"drop", "ram"}

// Names implements Enum.
func (UnloadTo) Names() []string { return unloadToNames }

// OperationStatus is where a command is in its life.
type OperationStatus string

// The states of an operation.
const (
	StatusQueued    OperationStatus = "queued"
	StatusRunning   OperationStatus = "running"
	StatusCompleted OperationStatus = "completed"
	StatusFailed    OperationStatus = "failed"
	StatusCancelled OperationStatus = "cancelled"
)

var operationStatusNames = []string{"queued", "running", "completed", "failed", "cancelled"}

// Names implements Enum.
func (OperationStatus) Names() []string { return operationStatusNames }

// PlanOutcome is what a dry run foresees.
type PlanOutcome string

// The outcomes that a dry run foresees.
const (
	PlanGranted PlanOutcome = "granted"
	PlanQueued  PlanOutcome = "queued"
	PlanRefused PlanOutcome = "refused"
)

var planOutcomeNames = []string{"granted", "queued", "refused"}

// Names implements Enum.
func (PlanOutcome) Names() []string { return planOutcomeNames }

// DefragmentStrategy is how far a defragmentation goes.
type DefragmentStrategy string

// The strategies of defragment.
const (
	DefragmentIncremental DefragmentStrategy = "incremental"
	DefragmentFull        DefragmentStrategy = "full"
)

var defragmentStrategyNames = []string{"incremental", "full"}

// Names implements Enum.
func (DefragmentStrategy) Names() []string { return defragmentStrategyNames }

// OptimizationType is what optimize may do.
type OptimizationType string

// The kinds of optimization.
const (
	OptimizeAuto       OptimizationType = "auto"
	OptimizeTrim       OptimizationType = "trim"
	OptimizeDefragment OptimizationType = "defragment"
	OptimizeModels     OptimizationType = "models"
	OptimizeAll        OptimizationType = "all"
)

var optimizationTypeNames = []string{"auto", "trim", "defragment", "models", "all"}

// Names implements Enum.
func (OptimizationType) Names() []string { return optimizationTypeNames }

// EvictionStrategy is the order in which models are released.
type EvictionStrategy string

// The eviction strategies.
const (
	EvictByCost EvictionStrategy = "cost"
	EvictGDSF   EvictionStrategy = "gdsf"
	EvictLRU    EvictionStrategy = "lru"
	EvictLFU    EvictionStrategy = "lfu"
	EvictFIFO   EvictionStrategy = "fifo"
	EvictBySize EvictionStrategy = "size"
)

var evictionStrategyNames = []string{"cost", "gdsf", "lru", "lfu", "fifo", "size"}

// Names implements Enum.
func (EvictionStrategy) Names() []string { return evictionStrategyNames }
