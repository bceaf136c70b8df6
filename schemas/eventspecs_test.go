package schemas_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

func TestEveryEventIsOfOneGroup(t *testing.T) {
	// Which groups have a kind: all kinds of the contract, as they stand in events.go.
	groups := map[schemas.EventKind][]string{}
	for _, e := range schemas.Events() {
		for _, k := range e.Kinds {
			groups[k] = append(groups[k], e.Name)
		}
	}
	for kind, want := range map[schemas.EventKind][]string{
		schemas.EventPressureChanged: {"pressure", "tenant_pressure"}, schemas.EventPressureReminder: {"pressure", "tenant_pressure"},
		schemas.EventAllocated: {"allocation"}, schemas.EventDeallocated: {"allocation"}, schemas.EventQueued: {"allocation"},
		schemas.EventRefused: {"allocation"}, schemas.EventExpired: {"allocation"}, schemas.EventMoved: {"allocation"},
		schemas.EventZombie: {"allocation"}, schemas.EventConfirmed: {"allocation"}, schemas.EventBatch: {"allocation"},
		schemas.EventModelLoading: {"model"}, schemas.EventModelLoadProgress: {"model"}, schemas.EventModelLoaded: {"model"},
		schemas.EventModelPromoted: {"model"}, schemas.EventModelDemoted: {"model"}, schemas.EventModelReleaseRequested: {"model"},
		schemas.EventModelUnloaded: {"model"}, schemas.EventModelLoadFailed: {"model"},
		schemas.EventStarted: {"transfer", "optimization", "node"}, schemas.EventProgress: {"transfer"},
		schemas.EventCompleted: {"transfer", "optimization", "command"}, schemas.EventFailed: {"transfer", "command"}, schemas.EventCancelled: {"transfer"},
		schemas.EventRestored: {"node"}, schemas.EventDrift: {"node"}, schemas.EventDeviceLost: {"node"}, schemas.EventDraining: {"node"},
		schemas.EventStopped: {"node"}, schemas.EventHeartbeat: {"heartbeat"},
	} {
		if got := groups[kind]; !slices.Equal(got, want) {
			t.Errorf("%s is in %v, not %v", kind, got, want)
		}
	}
}

func TestLookupEvent(t *testing.T) {
	for subject, want := range map[string]string{
		schemas.PressureSubject("n-1", "gpu-0"):               "pressure",
		schemas.TenantPressureSubject("acme", "n-1", "gpu-0"): "tenant_pressure",
		schemas.HeartbeatSubject("n-1"):                       "heartbeat",
		"memory.events.pressure.n-1":                          "",
		"memory.events.pressure.n-1.gpu-0.more":               "",
		"memory.events.pressure..gpu-0":                       "",
		"memory.allocate":                                     "",
		"":                                                    "",
	} {
		e, ok := schemas.LookupEvent(subject)
		if ok != (want != "") || ok && e.Name != want {
			t.Errorf("%s: %v, %v", subject, e, ok)
		}
	}
}

func TestErrorsOfActions(t *testing.T) {
	groups := map[string]bool{}
	for _, e := range schemas.Events() {
		groups[e.Name] = true
	}
	named := map[schemas.Code]bool{schemas.CodeUnknownAction: true}
	for _, s := range schemas.All() {
		for _, c := range s.Errors() {
			named[c] = true
		}
		if s.Changing != slices.Contains(s.Errors(), schemas.CodeRequestIDReused) {
			t.Errorf("%s changes: %v; its errors: %v", s.Action, s.Changing, s.Errors())
		}
		for _, e := range s.Events() {
			if !groups[e] {
				t.Errorf("%s has events of %q, which is no group", s.Action, e)
			}
		}
		_, takesDevice := s.Request.FieldByName("DeviceID")
		if takesDevice && !slices.Contains(s.Errors(), schemas.CodeInvalidDevice) {
			t.Errorf("%s takes a device and has no INVALID_DEVICE", s.Action)
		}
	}
	for _, c := range schemas.Codes() {
		if c.Code != schemas.CodeNotImplemented && !named[c.Code] {
			t.Errorf("no action answers %s", c.Code)
		}
	}
}

func ExampleEvents() {
	for _, e := range schemas.Events() {
		if !e.Kept {
			fmt.Println(e.Name, e.Subject)
		}
	}
	// Output: heartbeat memory.heartbeat.{node}
}
