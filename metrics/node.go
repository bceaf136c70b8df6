package metrics

import (
	"sync/atomic"
	"time"

	"github.com/isobar-project/isobar/schemas"
)

// Config is what is known before anything happens.
type Config struct {
	Node, Version, GoVersion string
	// Started is when the node began.
	Started time.Time
	// Devices are the ids of the node's devices; what is recorded of others is left out.
	Devices []string
}

// success is the code of commands without an error.
const success = "OK"

// other stands for an action or code that is not in the contract's tables.
const other = "other"

// Node is the figures of one node. Make it with NewNode; its methods may be called from
// any goroutine.
type Node struct {
	cfg Config

	// Commands by action and code, found by index; the maps never change.
	actions, codes []string
	actionAt       map[schemas.Action]int
	codeAt         map[schemas.Code]int
	commands       []atomic.Uint64 // action * len(codes) + code
	answers        []*histogram    // by action

	devices map[string]*deviceFigures
	events  *histogram
	copies  map[string]*copyFigures // by kind
	rare    rare
}

// deviceFigures are what happens on one device.
type deviceFigures struct {
	grant, queue, load, rate *histogram
	loaded                   atomic.Int64
}

// copyFigures are what happens by one kind of copy.
type copyFigures struct {
	rate  *histogram
	bytes atomic.Int64
}

// The kinds of copies.
const (
	kindCopy     = "copy"
	kindClear    = "clear"
	kindTransfer = "transfer"
)

var copyKinds = []string{kindClear, kindCopy, kindTransfer}

// NewNode makes the figures of a node at which nothing has happened.
func NewNode(c Config) *Node {
	n := &Node{cfg: c, actionAt: map[schemas.Action]int{}, codeAt: map[schemas.Code]int{}, devices: map[string]*deviceFigures{},
		events: newHistogram(&durations), copies: map[string]*copyFigures{}, rare: newRare()}
	for _, s := range schemas.All() {
		n.actionAt[s.Action] = len(n.actions)
		for _, a := range s.Aliases {
			n.actionAt[a] = len(n.actions)
		}
		n.actions = append(n.actions, string(s.Action))
	}
	n.actions = append(n.actions, other)
	n.codes = append(n.codes, success)
	n.codeAt[""] = 0
	for _, c := range schemas.Codes() {
		n.codeAt[c.Code] = len(n.codes)
		n.codes = append(n.codes, string(c.Code))
	}
	n.codes = append(n.codes, other)
	n.commands = make([]atomic.Uint64, len(n.actions)*len(n.codes))
	for range n.actions {
		n.answers = append(n.answers, newHistogram(&durations))
	}
	for _, id := range c.Devices {
		n.devices[id] = &deviceFigures{grant: newHistogram(&durations), queue: newHistogram(&durations), load: newHistogram(&durations), rate: newHistogram(&rates)}
	}
	for _, k := range copyKinds {
		n.copies[k] = &copyFigures{rate: newHistogram(&rates)}
	}
	return n
}

// Command counts an answer: took is from the command's arrival; code is "" for success.
func (n *Node) Command(action schemas.Action, code schemas.Code, took time.Duration) {
	a, ok := n.actionAt[action]
	if !ok {
		a = len(n.actions) - 1
	}
	c, ok := n.codeAt[code]
	if !ok {
		c = len(n.codes) - 1
	}
	n.commands[a*len(n.codes)+c].Add(1)
	n.answers[a].took(took)
}

// Granted counts a grant that waited that long for room.
func (n *Node) Granted(device string, queued time.Duration) {
	if d := n.devices[device]; d != nil {
		d.queue.took(queued)
	}
}

// Completed takes what a command's reply data says of its own duration.
func (n *Node) Completed(data any) {
	switch r := data.(type) {
	case *schemas.AllocateReply:
		if d := n.devices[r.DeviceID]; d != nil {
			d.grant.took(milliseconds(r.AllocationTimeMs))
		}
	case *schemas.CopyReply:
		n.copied(kindCopy, r.CopiedBytes, r.ThroughputBytesPerSecond)
	case *schemas.ClearReply:
		n.copied(kindClear, r.ClearedBytes, r.ThroughputBytesPerSecond)
	}
}

// EventLeft counts an event that was given to NATS that long after it happened.
func (n *Node) EventLeft(waited time.Duration) { n.events.took(waited) }

func (n *Node) copied(kind string, bytes int64, rate float64) {
	if bytes <= 0 {
		return
	}
	c := n.copies[kind]
	c.bytes.Add(bytes)
	if rate > 0 {
		c.rate.observe(int64(rate))
	}
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
