package vault

import (
	"time"

	"github.com/isobar-project/isobar/clock"
)

// fence decides which node holds the vault. It is pure: events and the time go in,
// effects come out in order. Connections are numbers.
type fence struct {
	pingTimeout, endTimeout time.Duration

	holder  *claimant
	waiting []*claimant // the first is being decided about
	phase   phase
	until   clock.Instant // end of the phase
}

// claimant is a node that holds the vault or wants to.
type claimant struct {
	conn      uint64
	pid       int
	start     uint64
	takeOver  bool
	connected bool
}

func (c *claimant) same(o *claimant) bool {
	return c.pid != 0 && c.pid == o.pid && c.start == o.start
}

type phase uint8

const (
	quiet  phase = iota
	asking       // the holder was pinged, or is gone and may come back
	ending       // the holder was sent SIGKILL
)

// effect is what the shell must do for the fence.
type effect struct {
	kind   effectKind
	conn   uint64
	pid    int    // refuse: of the holder
	reason string // refuse
}

type effectKind uint8

const (
	admit  effectKind = iota // conn holds the vault: send welcome
	refuse                   // tell conn that pid holds it
	ping                     // ask conn for a sign of life
	kill                     // end the process of conn
	forget                   // conn holds the vault no more; let go of its process
)

// hello: a node asks for the vault.
func (f *fence) hello(now clock.Instant, c claimant) []effect {
	c.connected = true
	f.waiting = append(f.waiting, &c)
	return f.advance(now, nil)
}

// pong: conn has answered the ping.
func (f *fence) pong(now clock.Instant, conn uint64) []effect {
	if f.phase != asking || f.holder.conn != conn || !f.holder.connected {
		return nil
	}
	f.phase = quiet
	out := []effect{f.refusal("it is running and answers")}
	f.waiting = f.waiting[1:]
	return f.advance(now, out)
}

// exited: the process that holds the vault by conn is dead.
func (f *fence) exited(now clock.Instant, conn uint64) []effect {
	if f.holder == nil || f.holder.conn != conn {
		return nil
	}
	return f.vacate(now)
}

// bye: the node releases the vault.
func (f *fence) bye(now clock.Instant, conn uint64) []effect { return f.exited(now, conn) }

func (f *fence) vacate(now clock.Instant) []effect {
	out := []effect{{kind: forget, conn: f.holder.conn}}
	f.holder, f.phase = nil, quiet
	return f.advance(now, out)
}

// disconnected: conn is closed. A holder stays one while its process lives.
func (f *fence) disconnected(now clock.Instant, conn uint64) []effect {
	if f.holder != nil && f.holder.conn == conn {
		f.holder.connected = false
		return nil
	}
	for i, c := range f.waiting {
		if c.conn != conn {
			continue
		}
		f.waiting = append(f.waiting[:i:i], f.waiting[i+1:]...)
		if i == 0 && f.phase == asking {
			f.phase = quiet // who asked is gone; the next one's question starts anew
		}
		return f.advance(now, nil)
	}
	return nil
}

// tick: the time may have passed deadline.
func (f *fence) tick(now clock.Instant) []effect { return f.advance(now, nil) }

// deadline is when tick has to come, if at all.
func (f *fence) deadline() (clock.Instant, bool) { return f.until, f.phase != quiet }

// vacant: nobody holds the vault or wants it.
func (f *fence) vacant() bool { return f.holder == nil && len(f.waiting) == 0 }

func (f *fence) refusal(reason string) effect {
	return effect{kind: refuse, conn: f.waiting[0].conn, pid: f.holder.pid, reason: reason}
}

func (f *fence) advance(now clock.Instant, out []effect) []effect {
	for len(f.waiting) > 0 {
		first := f.waiting[0]
		switch {
		case f.holder == nil:
			out = append(out, effect{kind: admit, conn: first.conn})
			f.holder, f.waiting = first, f.waiting[1:]

		case f.holder.same(first) && f.phase != ending:
			// The same process on a new connection.
			out = append(out, effect{kind: forget, conn: f.holder.conn})
			f.holder, f.phase = nil, quiet

		case f.phase == quiet && first.takeOver, f.phase == asking && now >= f.until:
			out = append(out, effect{kind: kill, conn: f.holder.conn})
			f.phase, f.until = ending, now.Add(f.endTimeout)
			return out

		case f.phase == quiet:
			if f.holder.connected {
				out = append(out, effect{kind: ping, conn: f.holder.conn})
			}
			f.phase, f.until = asking, now.Add(f.pingTimeout)
			return out

		case f.phase == ending && now >= f.until:
			out = append(out, f.refusal("it was sent SIGKILL but the kernel has not ended it yet"))
			f.waiting, f.phase = f.waiting[1:], quiet

		default:
			// A holder that comes back while another asks is further down the line.
			for i, c := range f.waiting[1:] {
				if f.phase == asking && f.holder.same(c) {
					f.waiting[0], f.waiting[i+1] = c, first
					return f.advance(now, out)
				}
			}
			return out
		}
	}
	if f.phase == ending && now >= f.until {
		f.phase = quiet
	}
	return out
}
