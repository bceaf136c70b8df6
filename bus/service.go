package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// ServiceName is the micro service's name.
const ServiceName = "memory"

// Requests that wait in one endpoint's queue, before the desk has seen them. They
// are of one action, so that a flood of queries leaves room for releases; beyond
// it the server's word to the requester is a timeout, and ours a ConsumerTooSlow.
const (
	endpointPendingMsgs  = 16384
	endpointPendingBytes = 32 << 20
)

// ServiceConfig describes the micro service.
type ServiceConfig struct {
	Conn *nats.Conn
	// Node is the node's name, one subject token. Version is the program's, SemVer.
	Node, Version string
	// Tenants maps each tenant to the prefix of its subjects, "" or ending in a dot,
	// for example "isobar.blue.". nil is {"default": ""}. The tenant of a command comes
	// from this prefix alone, never from what the command says.
	Tenants map[string]string
	// Desk gets the commands, from the goroutines of the subscriptions: one for each
	// endpoint, so that commands of one action on one subject are submitted in the
	// order of their arrival.
	Desk actors.Desk
	// Events gets the outcome of commands that had no reply subject.
	Events actors.Publisher
	// Observe, if set, is told of every command that was answered, from the goroutine
	// that answered; it must not block.
	Observe func(Outcome)
	// Clock is nil for the machine's.
	Clock clock.Clock
	Log   *slog.Logger
}

func (c *ServiceConfig) complete() error {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Tenants == nil {
		c.Tenants = map[string]string{schemas.DefaultTenant: ""}
	}
	if c.Conn == nil || c.Desk == nil || c.Events == nil {
		return errors.New("bus: a service needs a connection, a desk and a publisher")
	}
	if !schemas.ValidToken(c.Node) {
		return fmt.Errorf("bus: the node name %q must be lower-case letters, digits and dashes", c.Node)
	}
	prefixes := make(map[string]string, len(c.Tenants))
	for tenant, prefix := range c.Tenants {
		if !schemas.ValidToken(tenant) {
			return fmt.Errorf("bus: the tenant %q must be lower-case letters, digits and dashes", tenant)
		}
		if prefix != "" && (!strings.HasSuffix(prefix, ".") || strings.ContainsAny(prefix, "*> \t\r\n")) {
			return fmt.Errorf("bus: the prefix %q of tenant %s must be plain subject tokens and end in a dot", prefix, tenant)
		}
		if other, taken := prefixes[prefix]; taken {
			return fmt.Errorf("bus: tenants %s and %s have the same prefix %q", tenant, other, prefix)
		}
		prefixes[prefix] = tenant
	}
	return nil
}

// Service takes commands from NATS to the desk. Its methods may be called from
// any goroutine.
type Service struct {
	cfg     ServiceConfig
	micro   micro.Service
	unheard *unheard
	undone  *nats.Subscription
}

// endpoint is one subscription.
type endpoint struct {
	s      *Service
	tenant string
	// action is ActionCommand where the envelope says it.
	action schemas.Action
}

// NewService subscribes to every action's subjects. It returns when the server has
// taken the subscriptions, so that who learns of the node afterwards is heard.
func NewService(c ServiceConfig) (*Service, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	s := &Service{cfg: c}
	prefix := "_ISOBAR.unheard." + c.Node + "." + nuid.Next() + "."
	s.unheard = newUnheard(prefix, c.Clock)
	var err error
	s.undone, err = c.Conn.Subscribe(prefix+"*", func(m *nats.Msg) {
		if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
			s.unheard.report(m.Subject)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("bus: subscribing to unheard answers: %w", err)
	}
	s.micro, err = micro.AddService(c.Conn, micro.Config{
		Name: ServiceName, Version: c.Version, Description: "grants, shares and watches the memory of " + c.Node,
		Metadata: map[string]string{"node": c.Node},
	})
	if err == nil {
		err = s.addEndpoints()
	}
	if err == nil {
		err = c.Conn.FlushTimeout(flushTimeout)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("bus: starting the micro service: %w", err)
	}
	return s, nil
}

func (s *Service) addEndpoints() error {
	tenants := make([]string, 0, len(s.cfg.Tenants))
	for t := range s.cfg.Tenants {
		tenants = append(tenants, t)
	}
	slices.Sort(tenants)
	for _, tenant := range tenants {
		for _, spec := range schemas.All() {
			meta := metadata(spec)
			for _, name := range append([]schemas.Action{spec.Action}, spec.Aliases...) {
				if err := s.addEndpoint(tenant, name, meta); err != nil {
					return err
				}
			}
		}
		meta := map[string]string{"description": "any action, named by its envelope"}
		if err := s.addEndpoint(tenant, schemas.ActionCommand, meta); err != nil {
			return err
		}
	}
	return nil
}

// addEndpoint serves one action of one tenant on both of its subjects.
func (s *Service) addEndpoint(tenant string, name schemas.Action, meta map[string]string) error {
	prefix := s.cfg.Tenants[tenant]
	label := string(name)
	if prefix != "" {
		label = tenant + "_" + label
	}
	e := &endpoint{s: s, tenant: tenant, action: name}
	for _, at := range []struct{ label, subject string }{
		{label, prefix + schemas.CommandSubject(name)},
		{label + "-" + s.cfg.Node, prefix + schemas.NodeCommandSubject(name, s.cfg.Node)},
	} {
		err := s.micro.AddEndpoint(at.label, e, micro.WithEndpointSubject(at.subject), micro.WithEndpointMetadata(meta),
			micro.WithEndpointPendingLimits(endpointPendingMsgs, endpointPendingBytes))
		if err != nil {
			return fmt.Errorf("endpoint %s: %w", at.subject, err)
		}
	}
	return nil
}

// Handle implements micro.Handler. It returns when the desk has the command; the
// answer comes from elsewhere, so micro's own statistics time the decoding only.
func (e *endpoint) Handle(r micro.Request) {
	e.s.take(e, r.Reply(), nats.Header(r.Headers()), r.Data())
}

// Stop takes no more commands. Those at the desk can still be answered, and
// answers to grants that nobody hears are still undone.
func (s *Service) Stop() {
	if err := s.micro.Stop(); err != nil {
		s.cfg.Log.Warn("the micro service did not stop cleanly", "error", err)
	}
}

// Close is Stop, and nothing is undone any more. The connection is the caller's.
func (s *Service) Close() {
	if s.micro != nil {
		s.Stop()
	}
	s.unheard.close()
	_ = s.undone.Unsubscribe() // fails only where the connection is closed
}

// metadata is what `nats micro info` shows of an action.
func metadata(spec *schemas.Spec) map[string]string {
	return map[string]string{
		"description": spec.Summary,
		"changing":    strconv.FormatBool(spec.Changing),
		"built":       strconv.FormatBool(spec.Built),
		"role":        string(spec.Role),
		"request":     fields(spec.Request),
		"reply":       fields(spec.Reply),
	}
}

// fields lists the wire names of a type's fields, those of embedded types too.
func fields(t reflect.Type) string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
