package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"
)

// discovery answers $SRV.PING, INFO and STATS as NATS micro services do (ADR-32 of the NATS
// architecture: `nats micro ls`, `info`, `stats`). The micro package would count a command
// as served when its handler returns, which here is before it is answered, so only its wire
// types are used, and the figures are those of the answers.
type discovery struct {
	identity    micro.ServiceIdentity
	description string
	started     time.Time

	mu        sync.Mutex
	endpoints []*endpoint
}

func newDiscovery(node, version string, now time.Time) *discovery {
	return &discovery{
		identity: micro.ServiceIdentity{Name: ServiceName, ID: nuid.Next(), Version: version, Metadata: map[string]string{"node": node}},
		started:  now.UTC(), description: "grants, shares and watches the memory of " + node,
	}
}

// subscribe serves the discovery subjects and returns what ends them.
func (d *discovery) subscribe(l Link, failed func(error)) (ends []func(), err error) {
	for _, v := range []struct {
		verb  micro.Verb
		build func(detail) any
	}{{micro.PingVerb, d.ping}, {micro.InfoVerb, d.info}, {micro.StatsVerb, d.stats}} {
		for _, at := range [][2]string{{"", ""}, {d.identity.Name, ""}, {d.identity.Name, d.identity.ID}} {
			subject, err := micro.ControlSubject(v.verb, at[0], at[1])
			if err != nil {
				return ends, fmt.Errorf("discovery: %w", err)
			}
			end, err := l.Subscribe(subject, "", func(m *nats.Msg) {
				if m.Reply == "" {
					return
				}
				if err := publishFullest(l, m.Reply, v.build); err != nil {
					failed(err)
				}
			})
			if err != nil {
				return ends, fmt.Errorf("discovery: %s: %w", subject, err)
			}
			ends = append(ends, end)
		}
	}
	return ends, nil
}

// detail is how much an answer says. A server may take less at once than our own does, and
// many tenants make many endpoints.
type detail int

const (
	everything     detail = iota
	withoutSchemas        // metadata, but no schemas
	subjectsOnly          // no metadata at all
)

// publishFullest publishes the fullest answer that the server takes.
func publishFullest(l Link, to string, build func(detail) any) error {
	for d := everything; ; d++ {
		text, err := json.Marshal(build(d))
		if err == nil {
			err = l.Publish(to, "", nil, text)
		}
		if d == subjectsOnly || !errors.Is(err, nats.ErrMaxPayload) {
			return err
		}
	}
}

func (d *discovery) add(e *endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endpoints = append(d.endpoints, e)
}

func (d *discovery) ping(detail) any {
	return micro.Ping{ServiceIdentity: d.identity, Type: micro.PingResponseType}
}

func (d *discovery) info(how detail) any {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := micro.Info{ServiceIdentity: d.identity, Type: micro.InfoResponseType, Description: d.description, Endpoints: []micro.EndpointInfo{}}
	for _, e := range d.endpoints {
		i.Endpoints = append(i.Endpoints, micro.EndpointInfo{Name: e.name, Subject: e.subject, QueueGroup: queueGroup, Metadata: e.shown(how)})
	}
	return i
}

// shown is what INFO says of an endpoint besides its subject.
func (e *endpoint) shown(how detail) map[string]string {
	switch {
	case how == subjectsOnly:
		return nil
	case how == withoutSchemas || e.schemas == nil:
		return e.metadata
	}
	all := maps.Clone(e.metadata)
	maps.Copy(all, e.schemas)
	return all
}

func (d *discovery) stats(detail) any {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := micro.Stats{ServiceIdentity: d.identity, Type: micro.StatsResponseType, Started: d.started, Endpoints: []*micro.EndpointStats{}}
	for _, e := range d.endpoints {
		n, took := e.requests.Load(), time.Duration(e.took.Load())
		st := &micro.EndpointStats{Name: e.name, Subject: e.subject, QueueGroup: queueGroup, NumRequests: int(n), NumErrors: int(e.errors.Load()), ProcessingTime: took}
		if n > 0 {
			st.AverageProcessingTime = took / time.Duration(n)
		}
		if last := e.lastError.Load(); last != nil {
			st.LastError = *last
		}
		s.Endpoints = append(s.Endpoints, st)
	}
	return s
}
