package replay

import (
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
)

// Use is what a node saw of one model.
type Use struct {
	At     clock.Instant
	Object eviction.Object // as it was known then
	Kind   UseKind
	// Load is what a load would have taken then, in seconds: from main memory, say, where the
	// object's cost is that from disk.
	Load float64
}

// UseKind says what a Use is.
type UseKind uint8

// The kinds of uses. A request needs the model there, and has it loaded.
const (
	Asked   UseKind = iota
	Touched         // a use of a model that is there
	LetGo           // a client let go of it
)

// Room is what a device has for models, in bytes.
type Room struct {
	Bytes int64
	// Where more than High are taken, models are released until there are at most Low. High 0:
	// they stay until others need the room.
	High, Low int64
}

// Again replays what a node saw, with so much room. A request for a model that does not fit
// counts as a load, so that less room is never told as cheaper. The result's Score is not set.
func Again(uses []Use, room Room, p eviction.Policy) (Result, error) {
	r := run{policy: p, free: room.Bytes, place: map[string]int{}, decided: func(time.Duration, eviction.Plan) {}}
	at := map[string]int{}
	for _, u := range uses {
		key := u.Object.Key
		if i, ok := r.place[key]; ok && (u.Kind == LetGo || r.resident[i].Bytes != u.Object.Bytes) {
			r.remove(key)
		}
		switch u.Kind {
		case LetGo:
			p.Removed(key)
			continue
		case Touched:
			p.Used(key, u.At)
			continue
		}
		i, ok := at[key]
		if !ok {
			i = len(r.objects)
			at[key] = i
			r.objects = append(r.objects, u.Object)
		}
		r.objects[i] = u.Object
		before := r.result
		began := u.At.Add(-time.Duration(u.Load * float64(time.Second)))
		if _, err := r.serve([]int{i}, room.Bytes, u.At, began); err != nil {
			return Result{}, err
		}
		if r.result.Unserved > before.Unserved {
			r.result.Loads++
		}
		if r.result.Loads > before.Loads {
			r.result.Seconds = before.Seconds + u.Load
		}
		if room.High > 0 && room.Bytes-r.free > room.High {
			r.relieve(room.Bytes-r.free-room.Low, key, u.At)
		}
	}
	return r.result, nil
}

// relieve releases models until so many bytes are free again, the one just used last.
func (r *run) relieve(need int64, just string, now clock.Instant) {
	if i, ok := r.place[just]; ok {
		r.resident[i].LastVictim = true
		defer func() {
			if i, ok := r.place[just]; ok {
				r.resident[i].LastVictim = false
			}
		}()
	}
	plan := eviction.MakePlan(r.policy, eviction.Request{Need: need, Candidates: r.resident}, now)
	for _, v := range plan.Victims {
		r.evict(v.Key, now)
	}
}
