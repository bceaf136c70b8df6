package schemas

import "reflect"

// EventSpec is what there is to know about the events of one group of subjects.
type EventSpec struct {
	// Name is the group's, as it stands in its subjects.
	Name string
	// Subject is the literal subject with {node}, {device} and {tenant} for what varies.
	Subject string
	// Kinds are the kinds of events in the group. EventGap comes besides where Kept.
	Kinds []EventKind
	// Data is the type of the events' data, except of EventGap.
	Data reflect.Type
	// Kept says that the stream MEMORY_EVENTS keeps them, and that their sequence has no gaps.
	Kept    bool
	Summary string
}

// The places in a subject that vary.
const (
	nodePlace   = "{node}"
	devicePlace = "{device}"
	tenantPlace = "{tenant}"
)

// Events returns every group of events in the contract's order. The caller must not
// change it.
func Events() []*EventSpec { return eventSpecs }

// LookupEvent finds the group of a subject on which an event arrived, tenants' prefixes
// taken off.
func LookupEvent(subject string) (*EventSpec, bool) {
	for _, e := range eventSpecs {
		if e.matches(subject) {
			return e, true
		}
	}
	return nil, false
}

// matches compares token by token; a place takes any one token.
func (e *EventSpec) matches(subject string) bool {
	want, got := e.Subject, subject
	for {
		w, wantRest, wantMore := cutToken(want)
		g, gotRest, gotMore := cutToken(got)
		if w != g && (g == "" || w[0] != '{') || wantMore != gotMore {
			return false
		}
		if !wantMore {
			return true
		}
		want, got = wantRest, gotRest
	}
}

func cutToken(s string) (token, rest string, more bool) {
	for i := range len(s) {
		if s[i] == '.' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func eventSpec[Data any](name, subject string, kept bool, summary string, kinds ...EventKind) *EventSpec {
	return &EventSpec{Name: name, Subject: subject, Kinds: kinds, Data: reflect.TypeFor[Data](), Kept: kept, Summary: summary}
}

var eventSpecs = []*EventSpec{
	eventSpec[Pressure]("pressure", PressureSubject(nodePlace, devicePlace), true,
		"each change of a device's pressure level, once and in order; each second while critical with a deficit, a reminder",
		EventPressureChanged, EventPressureReminder),
	eventSpec[Pressure]("tenant_pressure", TenantPressureSubject(tenantPlace, nodePlace, devicePlace), true,
		"the same, for a tenant's quota on a device", EventPressureChanged, EventPressureReminder),
	eventSpec[AllocationBatch]("allocation", AllocationSubject(nodePlace, devicePlace), true,
		"what happens to grants and to requests that wait, in batches",
		EventAllocated, EventDeallocated, EventQueued, EventRefused, EventExpired, EventMoved, EventZombie, EventConfirmed, EventBatch),
	eventSpec[ModelEvent]("model", ModelSubject(nodePlace, devicePlace), true,
		"the life of models; at most ten load_progress a second",
		EventModelLoading, EventModelLoadProgress, EventModelLoaded, EventModelPromoted, EventModelDemoted,
		EventModelReleaseRequested, EventModelUnloaded, EventModelLoadFailed),
	eventSpec[Operation]("transfer", TransferSubject(nodePlace), true,
		"how transfers go; at most ten progress a second each",
		EventStarted, EventProgress, EventCompleted, EventFailed, EventCancelled),
	eventSpec[OptimizationEvent]("optimization", OptimizationSubject(nodePlace, devicePlace), true,
		"room being made on a device: why, what, how much, how long", EventStarted, EventCompleted),
	eventSpec[CommandEvent]("command", CommandEventSubject(nodePlace), true,
		"outcomes of commands that had no reply subject", EventCompleted, EventFailed),
	eventSpec[NodeEvent]("node", NodeSubject(nodePlace), true,
		"the life of a node", EventStarted, EventRestored, EventDrift, EventDeviceLost, EventDraining, EventStopped,
		EventWarningRaised, EventWarningCleared),
	eventSpec[Heartbeat]("heartbeat", HeartbeatSubject(nodePlace), false,
		"every 5 seconds: the node lives; each device's level and the sequence of its last change", EventHeartbeat),
}
