package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// ServiceName is the micro service's name.
const ServiceName = "memory"

// queueGroup is what the nodes of one server share their commands by.
const queueGroup = "q"

// Requests that wait in one endpoint's queue, before the desk has seen them. They
// are of one action, so that a flood of queries leaves room for releases; beyond
// it the server's word to the requester is a timeout, and ours a ConsumerTooSlow.
const (
	endpointPendingMsgs  = 16384
	endpointPendingBytes = 32 << 20
)

// ServiceConfig describes the micro service.
type ServiceConfig struct {
	Link Link
	// Node is the node's name, one subject token. Version is the program's, SemVer.
	Node, Version string
	// BootID tells this run of the node from others of its name; "" makes one.
	BootID string
	// Twin, if set, is told of another node of this name, from the link's goroutine.
	Twin func(bootID string)
	// Tenants maps each tenant to the prefix of its subjects, "" or ending in a dot,
	// for example "isobar.blue.". nil is {"default": ""}. The tenant of a command comes
	// from this prefix alone, never from what the command says.
	Tenants map[string]string
	// Operators maps tenants to the prefix of their operators' subjects. By a tenant's own
	// prefix, unless it is "", no command that asks for an operator is taken, whatever the
	// server lets through.
	Operators map[string]string
	// Desk gets the commands, from the goroutines of the subscriptions: one for each
	// endpoint, so that commands of one action on one subject are submitted in the
	// order of their arrival.
	Desk actors.Desk
	// Events gets the outcome of commands that had no reply subject.
	Events actors.Publisher
	// Observe, if set, is told of every command that was answered, from the goroutine
	// that answered; it must not block.
	Observe func(Outcome)
	// Trace, if set, says which trace a command belongs to that came with this traceparent
	// header ("" without one); nil for a command that is not traced. It must not block.
	Trace func(traceparent string) *actors.Trace
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
	if c.BootID == "" {
		c.BootID = nuid.Next()
	}
	if c.Twin == nil {
		c.Twin = func(string) {}
	}
	if c.Tenants == nil {
		c.Tenants = map[string]string{schemas.DefaultTenant: ""}
	}
	if c.Link == nil || c.Desk == nil || c.Events == nil {
		return errors.New("bus: a service needs a connection, a desk and a publisher")
	}
	if !schemas.ValidToken(c.Node) {
		return fmt.Errorf("bus: the node name %q must be lower-case letters, digits and dashes", c.Node)
	}
	if !semver.MatchString(c.Version) {
		return fmt.Errorf("bus: the version %q must be a semantic one, for example 1.2.3", c.Version)
	}
	prefixes := make(map[string]string, len(c.Tenants))
	for _, d := range c.doors() {
		tenant, prefix := d.tenant, d.prefix
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

// semver is the form of versions that discovery shows.
var semver = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// Service takes commands from NATS to the desk. Its methods may be called from
// any goroutine.
type Service struct {
	cfg       ServiceConfig
	discovery *discovery
	unheard   *unheard
	peers     *peers
	names     namePlan
	early     early
	undone    func() // ends the subscription to unheard answers

	stop  sync.Once
	taken []func() // end the subscriptions of the endpoints and of discovery
}

// endpoint is one subscription, and its figures.
type endpoint struct {
	s      *Service
	tenant string
	prefix string       // of its subject
	role   schemas.Role // the most that its commands may be
	// action is ActionCommand where the envelope says it.
	action        schemas.Action
	name, subject string
	// metadata is what discovery shows of it; nil for a tenant that is not the first, whose
	// endpoints are the same. schemas are its request's and its reply's, where it shows them.
	metadata, schemas map[string]string
	// direct is true on the subject of this node alone.
	direct bool

	requests, errors, took atomic.Int64 // took: ns from arrival to answer
	lastError              atomic.Pointer[string]
}

// NewService subscribes to every action's subjects. It returns when the server has
// taken the subscriptions, so that who learns of the node afterwards is heard.
func NewService(c ServiceConfig) (*Service, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	s := &Service{cfg: c, names: planNames(), discovery: newDiscovery(c.Node, c.Version, c.Clock.Wall())}
	prefix := "_ISOBAR.unheard." + c.Node + "." + nuid.Next() + "."
	s.unheard = newUnheard(prefix, c.Clock)
	var err error
	s.undone, err = c.Link.Subscribe(prefix+"*", "", func(m *nats.Msg) {
		if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
			s.unheard.report(m.Subject)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("bus: subscribing to unheard answers: %w", err)
	}
	// The other nodes are met first: a command must not be done here for want of knowing them.
	s.peers, err = meet(presence{Node: c.Node, Boot: c.BootID}, c.Link, c.Clock, c.Twin)
	if err == nil {
		err = s.addEndpoints()
	}
	if err == nil {
		var ends []func()
		ends, err = s.discovery.subscribe(c.Link, func(err error) { c.Log.Warn("discovery was not answered", "error", err) })
		s.taken = append(s.taken, ends...)
	}
	if err == nil {
		err = s.peers.serve()
	}
	if err == nil {
		err = c.Link.Flush(flushTimeout)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("bus: starting the service: %w", err)
	}
	s.early.release()
	return s, nil
}

func (s *Service) addEndpoints() error {
	for i, d := range s.cfg.doors() {
		for _, spec := range schemas.All() {
			var meta, shapes map[string]string
			if i == 0 {
				meta, shapes = metadata(spec), schemasOf(spec)
			}
			for _, name := range append([]schemas.Action{spec.Action}, spec.Aliases...) {
				if err := s.addEndpoint(d, name, meta, shapes); err != nil {
					return err
				}
			}
		}
		meta := map[string]string{"description": "any action, named by its envelope"}
		if err := s.addEndpoint(d, schemas.ActionCommand, meta, nil); err != nil {
			return err
		}
	}
	return nil
}

// addEndpoint serves one action of one tenant on both of its subjects. The schemas are shown
// once, at the subject of any node: two endpoints with the same would only be longer.
func (s *Service) addEndpoint(d door, name schemas.Action, meta, shapes map[string]string) error {
	label := d.label + string(name)
	for _, at := range []struct {
		label, subject string
		direct         bool
		shapes         map[string]string
	}{
		{label, d.prefix + schemas.CommandSubject(name), false, shapes},
		{label + "-" + s.cfg.Node, d.prefix + schemas.NodeCommandSubject(name, s.cfg.Node), true, nil},
	} {
		e := &endpoint{s: s, tenant: d.tenant, prefix: d.prefix, role: d.role, action: name, name: at.label, subject: at.subject, direct: at.direct, metadata: meta, schemas: at.shapes}
		end, err := s.cfg.Link.Subscribe(at.subject, queueGroup, e.take)
		if err != nil {
			return fmt.Errorf("endpoint %s: %w", at.subject, err)
		}
		s.taken = append(s.taken, end)
		s.discovery.add(e)
	}
	return nil
}

// Stop takes no more commands. Those at the desk can still be answered, and
// answers to grants that nobody hears are still undone.
func (s *Service) Stop() {
	s.stop.Do(func() {
		if s.peers != nil {
			s.peers.end()
		}
		for _, end := range s.taken {
			end()
		}
		if err := s.cfg.Link.Flush(flushTimeout); err != nil {
			s.cfg.Log.Warn("the last commands may not have been taken", "error", err)
		}
	})
}

// Close is Stop, and nothing is undone any more. The connection is the caller's.
func (s *Service) Close() {
	s.Stop()
	s.unheard.close()
	s.undone()
}

// metadata is what `nats micro info` shows of an action, besides its schemas.
func metadata(spec *schemas.Spec) map[string]string {
	return map[string]string{
		"description": spec.Summary,
		"changing":    strconv.FormatBool(spec.Changing),
		"role":        string(spec.Role),
		"schema":      jsonschema.ID(string(spec.Action)),
	}
}

// schemasOf are the schemas of an action's data and of its reply's, each on one line.
func schemasOf(spec *schemas.Spec) map[string]string {
	return map[string]string{
		"request": jsonschema.Request(spec, nil).Compact(),
		"reply":   jsonschema.Reply(spec, nil).Compact(),
	}
}
