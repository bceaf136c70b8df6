package bus

import (
	"slices"
	"strings"
	"sync"

	"github.com/isobar-project/isobar/schemas"
)

// The warnings of the bus, as the contract spells them.
const (
	WarnNoHistory    = schemas.WarnNoHistory
	WarnDisconnected = schemas.WarnDisconnected
	WarnDenied       = schemas.WarnDenied
	WarnOverrun      = schemas.WarnOverrun
	WarnTwin         = schemas.WarnTwin
)

// Warning says that something about the bus is not as it should be, while the
// node goes on.
type Warning struct {
	Code schemas.WarningCode
	// Subject tells warnings of one code apart: a connection or a NATS subject.
	Subject string
	Text    string
	// Fix is what a person can do about it.
	Fix string
}

// health is the set of warnings in force. Its zero value is ready.
type health struct {
	onChange func([]Warning)

	mu       sync.Mutex
	warnings []Warning // sorted by code and subject
}

func order(a, b Warning) int {
	if c := strings.Compare(string(a.Code), string(b.Code)); c != 0 {
		return c
	}
	return strings.Compare(a.Subject, b.Subject)
}

func (h *health) list() []Warning {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.warnings)
}

func (h *health) set(w Warning) {
	h.change(func() bool {
		i, found := slices.BinarySearchFunc(h.warnings, w, order)
		if found {
			same := h.warnings[i] == w
			h.warnings[i] = w
			return !same
		}
		h.warnings = slices.Insert(h.warnings, i, w)
		return true
	})
}

func (h *health) clear(code schemas.WarningCode) {
	h.remove(func(w Warning) bool { return w.Code == code })
}

func (h *health) clearSubject(code schemas.WarningCode, subject string) {
	h.remove(func(w Warning) bool { return w.Code == code && w.Subject == subject })
}

func (h *health) remove(gone func(Warning) bool) {
	h.change(func() bool {
		before := len(h.warnings)
		h.warnings = slices.DeleteFunc(h.warnings, gone)
		return len(h.warnings) != before
	})
}

// change runs f under the lock and tells of the result; the callbacks come in
// the order of the changes, because the lock is held.
func (h *health) change(f func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f() && h.onChange != nil {
		h.onChange(slices.Clone(h.warnings))
	}
}
