package seam

// Lane is the urgency of a message. Smaller values go first.
type Lane uint8

// The lanes, most urgent first.
const (
	// SystemLane carries results of work that was started, and lifecycle. Never
	// refused within the credit taken at dispatch.
	SystemLane Lane = iota
	// ReleaseLane carries everything that gives memory back.
	ReleaseLane
	// GrantLane carries everything that asks for memory or changes state.
	GrantLane
	// QueryLane carries what only reads.
	QueryLane

	laneCount = 4
)

// QueryQuota is how many messages of higher lanes may pass a waiting query
// before one query is let through.
const QueryQuota = 64

// String names the lane.
func (l Lane) String() string {
	switch l {
	case SystemLane:
		return "system"
	case ReleaseLane:
		return "release"
	case GrantLane:
		return "grant"
	case QueryLane:
		return "query"
	}
	return "unknown"
}

// ring is a bounded first-in first-out queue that starts small, doubles up to
// its limit, and keeps what it grew to: no allocation in the steady state.
type ring struct {
	buf   []any // its length is a power of two, or zero before first use
	head  int   // index of the oldest message
	n     int   // messages held
	limit int   // most messages held at once
}

const ringStart = 16

// push appends msg, or reports false when the ring is full.
func (r *ring) push(msg any) bool {
	if r.n == len(r.buf) || r.n == r.limit {
		if r.n >= r.limit {
			return false
		}
		r.grow()
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = msg
	r.n++
	return true
}

// pop removes the oldest message. The ring must not be empty.
func (r *ring) pop() any {
	msg := r.buf[r.head]
	r.buf[r.head] = nil // the ring must not keep the message alive
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	return msg
}

func (r *ring) grow() {
	size := 2 * len(r.buf)
	if size == 0 {
		size = ringStart
	}
	buf := make([]any, size)
	n := copy(buf, r.buf[r.head:])
	copy(buf[n:], r.buf[:r.head])
	r.buf, r.head = buf, 0
}

// clear forgets everything, memory included.
func (r *ring) clear() { *r = ring{limit: r.limit} }
