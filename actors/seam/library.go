package seam

import (
	"log/slog"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
)

// library is the part of protoactor that is in use: a context per actor that
// dispatches, and lifecycle. Mailbox, scheduling, supervision and refusals are
// ours; futures, reentrancy, routers, remotes, metrics and its own supervision
// are not used.
type library struct {
	system *actor.ActorSystem
}

func newLibrary() *library {
	system := actor.NewActorSystem(
		// Its log tells of nothing that ours does not, and at a level that disturbs.
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }),
		// With metrics on, every spawn leaks a callback.
		actor.WithMetricProviders(nil),
	)
	// The registry makes 32,768 maps (2.8 MiB) for what will be a few dozen names.
	// One bucket of 32 serves; what was registered meanwhile moves into it.
	registry := system.ProcessRegistry
	kept := make(map[string]actor.Process)
	for _, id := range []string{"eventstream", "deadletter"} {
		if p, ok := registry.GetLocal(id); ok {
			kept[id] = p
		}
	}
	registry.LocalPIDs.LocalPIDs = slices.Clone(registry.LocalPIDs.LocalPIDs[:1])
	for id, p := range kept {
		registry.Add(p, id)
	}
	return &library{system: system}
}

// start spawns the context that dispatches to r.
func (l *library) start(r *Ref) {
	props := actor.PropsFromFunc(func(ctx actor.Context) {
		switch msg := ctx.Message().(type) {
		case *actor.Started, *actor.Stopping:
		case *actor.Stopped:
			r.ended()
		default:
			r.receiver.Receive(msg)
		}
	},
		actor.WithMailbox(func() actor.Mailbox { return libraryMailbox{&r.box} }),
	)
	// The prefix keeps the name readable; the number that follows makes it unique.
	pid := l.system.Root.SpawnPrefix(props, r.name)
	r.stop = func() { l.system.Root.Stop(pid) }
}

// shutdown stops the library's own timers. It stops no actor, and must not be
// called twice.
func (l *library) shutdown() {
	if !l.system.IsStopped() {
		l.system.Shutdown()
	}
}

// libraryMailbox shows our mailbox to the library.
type libraryMailbox struct{ box *mailbox }

var _ actor.Mailbox = libraryMailbox{}

// RegisterHandlers implements actor.Mailbox. The dispatcher is not used: an
// actor has a goroutine of its own.
func (m libraryMailbox) RegisterHandlers(invoker actor.MessageInvoker, _ actor.Dispatcher) {
	m.box.deliver = invoker.InvokeUserMessage
	m.box.control = invoker.InvokeSystemMessage
}

// PostSystemMessage implements actor.Mailbox: lifecycle only.
func (m libraryMailbox) PostSystemMessage(msg any) {
	switch msg.(type) {
	case *actor.SuspendMailbox, *actor.ResumeMailbox:
		// Parts of the library's supervision, which never sees a failure of ours.
	default:
		m.box.pushLifecycle(msg)
	}
}

// PostUserMessage implements actor.Mailbox. Nobody holds an actor's address in the
// library's terms, so nothing comes this way.
func (m libraryMailbox) PostUserMessage(msg any) {
	if wake, err := m.box.push(GrantLane, msg); err == nil && wake {
		m.box.schedule()
	}
}

// Start implements actor.Mailbox.
func (m libraryMailbox) Start() {}

// UserMessageCount implements actor.Mailbox.
func (m libraryMailbox) UserMessageCount() int {
	total := 0
	for _, n := range m.box.depth() {
		total += n
	}
	return total
}
