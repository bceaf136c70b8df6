package bus

import (
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// nodesSubject is where nodes tell each other of themselves: who starts asks who is there and,
// once it takes commands, says hello; both are answered by all. Everybody says here once in a
// HeartbeatPeriod; who stops says bye.
const nodesSubject = "_ISOBAR.nodes"

// presenceSubject has a subscriber exactly while the node takes commands, so that the
// server's word of "no responders" tells at once that it does not.
func presenceSubject(node string) string { return "_ISOBAR.present." + node }

// peerLife is how long a node counts as there after its last word.
const peerLife = 3 * HeartbeatPeriod

// presence is one word of a node.
type presence struct {
	Node string `json:"node"`
	Boot string `json:"boot_id"`
	Word string `json:"word"` // who, hello, here, bye
}

// maxPeers bounds what others can make this node remember.
const maxPeers = 1024

// peers are the other nodes of this NATS. It may be used from any goroutine.
type peers struct {
	own   presence
	link  Link
	clock clock.Clock
	// twin is told when another node bears this one's name.
	twin func(boot string)

	any   atomic.Bool // cheaper than the lock for a node that is alone
	mu    sync.Mutex
	seen  map[string]clock.Instant
	timer clock.Timer
	ended bool
	ends  []func()
}

// meet learns of the others, who do not learn of this node before it serves. Afterwards end
// is to be called.
func meet(own presence, link Link, c clock.Clock, twin func(boot string)) (*peers, error) {
	p := &peers{own: own, link: link, clock: c, twin: twin, seen: map[string]clock.Instant{}}
	end, err := link.Subscribe(nodesSubject, "", p.hear)
	if err != nil {
		return nil, err
	}
	p.ends = append(p.ends, end)
	p.say("who")
	return p, nil
}

// serve says that this node takes commands from now on.
func (p *peers) serve() error {
	end, err := p.link.Subscribe(presenceSubject(p.own.Node), "", func(*nats.Msg) {})
	if err != nil {
		return err
	}
	p.ends = append(p.ends, end)
	p.say("hello")
	p.beat()
	return nil
}

func (p *peers) say(word string) {
	own := p.own
	own.Word = word
	b, err := json.Marshal(own)
	if err == nil {
		// While NATS is away there is nobody to tell; the next beat does.
		_ = p.link.Publish(nodesSubject, "", nil, b)
	}
}

func (p *peers) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.timer = p.clock.AfterFunc(HeartbeatPeriod, func() {
		p.forget(p.clock.Now())
		p.say("here")
		p.beat()
	})
}

// hear takes a word of any node, this one included.
func (p *peers) hear(m *nats.Msg) {
	var w presence
	if len(m.Data) > 1024 || json.Unmarshal(m.Data, &w) != nil || !schemas.ValidToken(w.Node) {
		return
	}
	if w.Node == p.own.Node {
		if w.Boot != p.own.Boot && w.Word != "bye" {
			p.twin(w.Boot)
			if w.Word != "here" {
				p.say("here") // that one, too, is to know
			}
		}
		return
	}
	p.mu.Lock()
	_, known := p.seen[w.Node]
	switch {
	case w.Word == "bye":
		delete(p.seen, w.Node)
	case w.Word != "who" && (known || len(p.seen) < maxPeers):
		p.seen[w.Node] = p.clock.Now()
	}
	p.any.Store(len(p.seen) > 0)
	serves := p.timer != nil && !p.ended
	p.mu.Unlock()
	if serves && (w.Word == "who" || w.Word == "hello") {
		p.say("here")
	}
}

// forget drops who has been silent for too long.
func (p *peers) forget(now clock.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node, at := range p.seen {
		if now.Sub(at) >= peerLife {
			delete(p.seen, node)
		}
	}
	p.any.Store(len(p.seen) > 0)
}

// others lists the other nodes by name; nil where there are none.
func (p *peers) others() []string {
	if !p.any.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	nodes := make([]string, 0, len(p.seen))
	for n := range p.seen {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	return nodes
}

// end says bye and listens no more. It may be called more than once.
func (p *peers) end() {
	p.mu.Lock()
	ended := p.ended
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	if ended {
		return
	}
	p.say("bye")
	for _, end := range p.ends {
		end()
	}
}
