package history

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// UseKind says what became of a model that somebody asked for.
type UseKind uint8

// The kinds of uses.
const (
	Hit   UseKind = iota // it was there, or somebody else's load brought it
	Miss                 // it was loaded for this
	Touch                // not asked for anew: it was mapped, or a handle of it fetched
	Gone                 // not a use: a client let go of it
	useKinds
)

// Use is one time that somebody asked for a model on a device.
type Use struct {
	At    clock.Instant
	Model uint64 // tells models apart: a hash of the name
	Bytes int64
	Cost  time.Duration // of loading it again
	Kind  UseKind
	Took  time.Duration // the load, of a Miss
}

// How many blocks of uses are remembered of a device, and of how many bytes. Where fifty models
// are asked for once a second, a block has room for five hundred uses.
const (
	traceBlocks = 64
	traceBytes  = 4096
)

// trace is a bounded series of uses, in blocks of which each can be read by itself: the
// moment at which it begins, and then items. An item is 0 and a model, which later items of
// the block mean by its number in it; or a use.
type trace struct {
	reel
	block  []byte        // the newest
	models []Use         // of it
	now    clock.Instant // the latest use in it
}

// resume goes on with the newest block, unless it breaks off.
func (t *trace) resume() {
	ok := false
	t.block = slices.Clone(t.last())
	if t.models, t.now, ok = eachUse(t.block, func(*Use) {}); !ok {
		t.block = nil
	}
}

// add takes uses, none of them earlier than those before.
func (t *trace) add(uses []Use) {
	if len(uses) == 0 {
		return
	}
	for i := range uses {
		u := &uses[i]
		if u.Kind >= useKinds || u.Bytes < 0 || u.Cost < 0 || u.Took < 0 || u.At < 0 {
			continue
		}
		if t.block != nil {
			if b := t.appended(u); len(b) <= t.room() {
				t.block = b
				continue
			}
			t.replace(t.block)
		}
		t.block, t.models, t.now = binary.AppendUvarint(nil, uint64(u.At)), nil, u.At
		t.block = t.appended(u)
		t.push(t.block)
	}
	if t.block != nil {
		t.replace(t.block)
	}
}

// appended is the newest block with one more use.
func (t *trace) appended(u *Use) []byte {
	b := t.block
	i := slices.IndexFunc(t.models, func(m Use) bool { return m.Model == u.Model && m.Bytes == u.Bytes && m.Cost == u.Cost })
	if i < 0 {
		i = len(t.models)
		b = binary.LittleEndian.AppendUint64(append(b, 0), u.Model)
		b = binary.AppendUvarint(b, uint64(u.Bytes))
		b = binary.AppendUvarint(b, uint64(u.Cost))
	}
	b = binary.AppendUvarint(b, 1+uint64(i)*uint64(useKinds)+uint64(u.Kind))
	b = binary.AppendUvarint(b, uint64(max(0, u.At-t.now)))
	if u.Kind == Miss {
		b = binary.AppendUvarint(b, uint64(u.Took))
	}
	if len(b) <= t.room() {
		if i == len(t.models) {
			t.models = append(t.models, *u)
		}
		t.now = max(t.now, u.At)
	}
	return b
}

// eachUse gives the uses of a block to f, and returns its models and the latest moment; false
// where the block breaks off.
func eachUse(b []byte, f func(*Use)) (models []Use, at clock.Instant, ok bool) {
	ok = true
	next := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > math.MaxInt64 {
			b, ok = nil, false
			return 0
		}
		b = b[n:]
		return int64(v)
	}
	at = clock.Instant(next())
	for ok && len(b) > 0 {
		item := next()
		if item == 0 && ok {
			if len(b) < 8 {
				return models, at, false
			}
			m := Use{Model: binary.LittleEndian.Uint64(b)}
			b = b[8:]
			m.Bytes, m.Cost = next(), time.Duration(next())
			models = append(models, m)
			continue
		}
		i := (item - 1) / int64(useKinds)
		step := clock.Instant(next())
		if !ok || i >= int64(len(models)) || step > math.MaxInt64-at {
			return models, at, false
		}
		at += step
		u := models[i]
		if u.At, u.Kind = at, UseKind((item-1)%int64(useKinds)); u.Kind == Miss {
			u.Took = time.Duration(next())
		}
		if ok {
			f(&u)
		}
	}
	return models, at, ok
}

// Asked takes uses of models on a device, none of them earlier than those before.
func (h *History) Asked(device string, uses []Use) { h.of(device).trace.add(uses) }

// UsesMark changes with what Uses tells.
func (h *History) UsesMark(device string) uint64 {
	t := &h.of(device).trace
	return uint64(t.n)<<32 | uint64(t.version)
}

// Uses are those that are remembered of a device, the oldest first.
func (h *History) Uses(device string) (out []Use) {
	t := &h.of(device).trace
	before := clock.Instant(0)
	for i := range t.len() {
		_, _, _ = eachUse(t.at(i), func(u *Use) {
			if u.At >= before {
				before = u.At
				out = append(out, *u)
			}
		})
	}
	return out
}

// ModelOf is what Use.Model is of a name: the same in every process.
func ModelOf(name string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * prime
	}
	return h
}
