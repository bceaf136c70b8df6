package bus

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
)

const (
	// unheardFor is how long an answer can turn out to be unheard. NATS says so
	// within a round trip to the server; the rest is for a server that is busy or
	// being reconnected to.
	unheardFor = 10 * time.Second
	// unheardMax bounds the answers watched at once. Beyond it the oldest counts as
	// heard: so many answers later, the server's word on it would have come. Few enough
	// that the ring stays in a processor's cache.
	unheardMax = 1 << 12
	// unheardSweep is how often the old ones are dropped.
	unheardSweep = time.Second
)

// unheard watches answers of which the server will say when nobody listens for
// them. An answer to a grant is published with a reply subject of its own, a
// token below one wildcard subscription; if the requester's inbox is gone, the
// server answers "503 no responders" to that subject, and the grant is undone.
//
// A token is its place in a ring plus 64 random bits: it can not be guessed, so
// that a client can at most undo what it was itself told of. It may be used
// from any goroutine; undo callbacks run outside the lock.
type unheard struct {
	prefix string // ends in a dot
	clock  clock.Clock

	mu         sync.Mutex
	ring       []watched // len is 0 or a power of two; sequence s lives at s mod len
	head, tail uint64    // watched sequences are [head, tail)
	sweeping   bool
	timer      clock.Timer
	closed     bool
}

type watched struct {
	nonce uint64
	at    clock.Instant
	undo  func() // nil once used
}

func newUnheard(prefix string, c clock.Clock) *unheard {
	return &unheard{prefix: prefix, clock: c}
}

// watch returns the reply subject under which the server will report an answer
// that is sent now and that nobody listened for.
func (u *unheard) watch(undo func(), now clock.Instant) string {
	nonce := rand.Uint64()
	u.mu.Lock()
	if u.tail-u.head == uint64(len(u.ring)) {
		u.grow()
	}
	seq := u.tail
	u.ring[seq&uint64(len(u.ring)-1)] = watched{nonce: nonce, at: now, undo: undo}
	u.tail++
	if !u.sweeping && !u.closed {
		u.sweeping = true
		u.timer = u.clock.AfterFunc(unheardSweep, u.sweep)
	}
	u.mu.Unlock()

	var space [128]byte
	b := append(space[:0], u.prefix...)
	b = strconv.AppendUint(b, seq, 36)
	b = append(b, '-')
	b = strconv.AppendUint(b, nonce, 36)
	return string(b)
}

// grow doubles the ring, or forgets its oldest entry when it is at its bound.
func (u *unheard) grow() {
	if len(u.ring) >= unheardMax {
		u.ring[u.head&uint64(len(u.ring)-1)] = watched{}
		u.head++
		return
	}
	bigger := make([]watched, max(64, 2*len(u.ring)))
	for s := u.head; s < u.tail; s++ {
		bigger[s&uint64(len(bigger)-1)] = u.ring[s&uint64(len(u.ring)-1)]
	}
	u.ring = bigger
}

// report takes the server's word that nobody listened, and undoes the answer,
// once. Other subjects and old tokens are ignored.
func (u *unheard) report(subject string) {
	if undo := u.take(subject); undo != nil {
		undo()
	}
}

// forget ends the watching of an answer that was not sent after all.
func (u *unheard) forget(subject string) { u.take(subject) }

// take removes the callback behind a reply subject, nil where there is none.
func (u *unheard) take(subject string) func() {
	token, ok := strings.CutPrefix(subject, u.prefix)
	if !ok {
		return nil
	}
	seqText, nonceText, ok := strings.Cut(token, "-")
	if !ok {
		return nil
	}
	seq, err := strconv.ParseUint(seqText, 36, 64)
	if err != nil {
		return nil
	}
	nonce, err := strconv.ParseUint(nonceText, 36, 64)
	if err != nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if seq < u.head || seq >= u.tail {
		return nil
	}
	w := &u.ring[seq&uint64(len(u.ring)-1)]
	if w.nonce != nonce {
		return nil
	}
	undo := w.undo
	w.undo = nil
	return undo
}

func (u *unheard) sweep() {
	now := u.clock.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.head < u.tail {
		w := &u.ring[u.head&uint64(len(u.ring)-1)]
		if now.Sub(w.at) < unheardFor {
			break
		}
		*w = watched{}
		u.head++
	}
	if u.head == u.tail || u.closed {
		u.ring, u.sweeping = nil, false // an idle node keeps no ring
		u.head = u.tail
		return
	}
	u.timer = u.clock.AfterFunc(unheardSweep, u.sweep)
}

// close forgets every watched answer.
func (u *unheard) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	if u.timer != nil {
		u.timer.Stop()
	}
	u.ring, u.head = nil, u.tail
}
