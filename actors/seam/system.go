package seam

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
)

// Receiver is the behaviour of an actor.
type Receiver interface {
	// Receive handles one message. It runs on one goroutine at a time and must
	// not block.
	Receive(msg any)
}

// Restarter is implemented by stateless receivers that keep a cache or a
// connection that a panic may have left half made.
type Restarter interface {
	// Restart runs after a panic, before the next message, on the same terms as
	// Receive.
	Restart()
}

// The lanes' depths where Config leaves them zero, in messages. A lane takes
// 16 bytes a message, and only for what it once held at the same time.
const (
	DefaultSystemDepth  = 1 << 16
	DefaultReleaseDepth = 1 << 13
	DefaultGrantDepth   = 1 << 12
	DefaultQueryDepth   = 1 << 10
)

// Config says what an actor is called and how it fails.
type Config struct {
	// Name appears in logs and panics, for example "device/ram-0". Required.
	Name string
	// Depth is the most messages that wait on each lane; zero means the default
	// of the lane. The System lane's is a cap on defects, not on load: choose it
	// above all credit that can be out at once.
	Depth [4]int
	// Stateful receivers do not survive a panic: see OnPanic.
	Stateful bool
	// OnPanic is called on the goroutine of the failure (for an overflow of the
	// System lane that is the sender's, and there is no stack) with the actor's name,
	// the panic's value and its stack. Nil means the policy: a stateful actor ends
	// the process, a stateless one is logged and goes on. When a stateful
	// actor's OnPanic returns, the actor is stopped all the same.
	OnPanic func(name string, v any, stack []byte)
}

// ExitPanic is the process's exit status after a panic of a stateful actor.
const ExitPanic = 70

// System is a set of actors that end together.
type System struct {
	log  *slog.Logger
	exit func(code int)
	lib  *library

	mu     sync.Mutex
	refs   []*Ref // in order of spawning
	closed bool
}

// Option changes a System.
type Option func(*System)

// WithExit replaces os.Exit as the end of the process after a stateful actor's
// panic. For tests.
func WithExit(exit func(code int)) Option { return func(s *System) { s.exit = exit } }

// NewSystem makes a system without actors. End it with Shutdown. A nil log
// discards.
func NewSystem(log *slog.Logger, opts ...Option) *System {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &System{log: log, exit: os.Exit, lib: newLibrary()}
	for _, o := range opts {
		o(s)
	}
	return s
}

// Ref is the address of an actor. All methods may be called from any goroutine.
type Ref struct {
	name     string
	cfg      Config
	system   *System
	receiver Receiver
	box      mailbox
	wakeup   chan struct{} // at most one token: the mailbox is scheduled once
	done     chan struct{} // closed when the receiver will not run again
	stop     func()        // asks the library, once
	stopOnce sync.Once
	panics   atomic.Uint64
	failed   atomic.Bool // the policy for a stateful actor's end was applied
}

// Spawn starts an actor. It panics if the configuration is unsound or the
// system has been shut down: both are defects of the caller.
func (s *System) Spawn(cfg Config, r Receiver) *Ref {
	if cfg.Name == "" || r == nil {
		panic("seam: an actor needs a name and a receiver")
	}
	ref := &Ref{
		name: cfg.Name, cfg: cfg, system: s, receiver: r,
		wakeup: make(chan struct{}, 1), done: make(chan struct{}),
	}
	defaults := [laneCount]int{DefaultSystemDepth, DefaultReleaseDepth, DefaultGrantDepth, DefaultQueryDepth}
	for l, depth := range cfg.Depth {
		if depth < 0 {
			panic(fmt.Sprintf("seam: %s: depth of lane %s is %d", cfg.Name, Lane(l), depth))
		}
		if depth == 0 {
			depth = defaults[l]
		}
		ref.box.lanes[l].limit = depth
	}
	ref.box.failed = ref.recovered
	ref.box.schedule = func() { ref.wakeup <- struct{}{} }

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		panic("seam: spawn of " + cfg.Name + " after shutdown")
	}
	s.refs = append(s.refs, ref)
	go ref.loop()
	s.lib.start(ref)
	return ref
}

// loop is the actor's goroutine. It is kept between turns, so that the stack
// that the receiver once needed need not be grown again for each message.
func (r *Ref) loop() {
	for {
		select {
		case <-r.wakeup:
			r.box.turn()
		case <-r.done:
			return
		}
	}
}

// ended is called by the library, in the actor's last turn.
func (r *Ref) ended() {
	r.box.kill()
	close(r.done)
	s := r.system
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ref := range s.refs {
		if ref == r {
			s.refs = append(s.refs[:i], s.refs[i+1:]...)
			return
		}
	}
}

// Name returns the name that the actor was spawned with.
func (r *Ref) Name() string { return r.name }

// Depth returns how many messages wait on each lane.
func (r *Ref) Depth() [4]int { return r.box.depth() }

// Panics returns how many panics the receiver has had.
func (r *Ref) Panics() uint64 { return r.panics.Load() }

// Tell enqueues msg and returns at once: nil, ErrBusy, ErrStopped, or
// ErrOverflow for a System lane at its cap, which fails the actor. An actor may
// tell itself.
func (r *Ref) Tell(l Lane, msg any) error {
	wake, err := r.box.push(l, msg)
	if wake {
		r.box.schedule()
	}
	if err == ErrBusy && l == SystemLane {
		return r.overflow(msg)
	}
	return err
}

// lent is how many messages a caller of TellHere handles at most.
const lent = 8

// TellHere is Tell by a caller that has nothing better to do: if the actor is
// idle it runs on the caller's goroutine, at once, which saves two switches of
// goroutine and often the wake-up of a processor. It handles a few messages at
// most and leaves the rest to the actor's own goroutine.
//
// Only an outer goroutine, such as a subscription's, may call it: never a
// Receiver, and never with a lock held.
func (r *Ref) TellHere(l Lane, msg any) error {
	wake, err := r.box.push(l, msg)
	if wake {
		r.box.turnOf(lent)
	}
	if err == ErrBusy && l == SystemLane {
		return r.overflow(msg)
	}
	return err
}

// Stop ends the actor after the message it is at, if any: what waits is
// forgotten, and Tell answers ErrStopped from now on. The channel is closed when
// the receiver will not run again. It may be called more than once, and by
// the receiver itself if it does not wait.
func (r *Ref) Stop() <-chan struct{} {
	r.box.close()
	r.stopOnce.Do(r.stop)
	return r.done
}

// Shutdown stops all actors, the youngest first, and waits until none runs. It
// returns the context's error, naming who still runs, if that comes first; it
// may then be called again. Spawn is refused from the first call on.
func (s *System) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	refs := append([]*Ref(nil), s.refs...)
	s.mu.Unlock()
	for i := len(refs) - 1; i >= 0; i-- {
		refs[i].Stop()
	}
	for i, ref := range refs {
		select {
		case <-ref.done:
		case <-ctx.Done():
			var running []string
			for _, ref := range refs[i:] {
				select {
				case <-ref.done:
				default:
					running = append(running, ref.name)
				}
			}
			return fmt.Errorf("actors still running: %s: %w", strings.Join(running, ", "), context.Cause(ctx))
		}
	}
	s.lib.shutdown()
	return nil
}

func (r *Ref) overflow(msg any) error {
	r.failure(fmt.Errorf("%w: %d results wait, next is %T", ErrOverflow, r.box.lanes[SystemLane].limit, msg), nil)
	return ErrOverflow
}

// recovered runs while the goroutine of a turn recovers from a panic.
func (r *Ref) recovered(v any) {
	r.panics.Add(1)
	r.failure(v, debug.Stack())
	if !r.cfg.Stateful {
		if again, ok := r.receiver.(Restarter); ok {
			again.Restart()
		}
	}
}

// failure applies the policy for a panic with value v.
func (r *Ref) failure(v any, stack []byte) {
	if r.cfg.Stateful {
		r.box.close() // before anybody can see the failure and tell more
		defer r.Stop()
		if r.failed.Swap(true) {
			return // two senders met the cap of the System lane at once
		}
	}
	switch {
	case r.cfg.OnPanic != nil:
		r.cfg.OnPanic(r.name, v, stack)
	case r.cfg.Stateful:
		r.system.log.Error("actor failed, the process ends so that a fresh one takes over",
			"actor", r.name, "panic", fmt.Sprint(v), "stack", string(stack))
		r.system.exit(ExitPanic)
	default:
		r.system.log.Error("actor lost a message and goes on",
			"actor", r.name, "panic", fmt.Sprint(v), "stack", string(stack))
	}
}
