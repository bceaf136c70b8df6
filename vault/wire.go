package vault

import (
	"errors"

	"github.com/isobar-project/isobar/fdwire"
)

const (
	// protocolVersion changes when old and new processes could misunderstand each
	// other. A vault outlives upgrades of its node, so fields are added, never
	// changed, and unknown ones ignored.
	protocolVersion = 1

	// maxBatch is how many descriptors travel in one message.
	maxBatch = 128
	// listPage is how many entries one answer to list describes.
	listPage = 512
	// dropPage is how many ids one drop names.
	dropPage = 4096
)

// The types of message.
const (
	typeHello   = "hello"   // node: version, role, take_over → welcome or error
	typeWelcome = "welcome" // version, pid, count, capacity
	typeFetch   = "fetch"   // node: after → table
	typeTable   = "table"   // entries + descriptors, more
	typePut     = "put"     // node: entries + descriptors → held
	typeHeld    = "held"    // refused: ids that were held already
	typeDrop    = "drop"    // node: ids → dropped
	typeDropped = "dropped"
	typeList    = "list"   // anybody: after → listed
	typeListed  = "listed" // stats, more
	typeBye     = "bye"    // node → bye: it holds the vault no more
	typePing    = "ping"   // vault → pong
	typePong    = "pong"
	typeError   = "error" // error_code, error_message, pid
)

const (
	roleNode  = "node"
	roleQuery = "query"
)

// The error codes of the protocol.
const (
	codeHeld      = "HELD"
	codeForbidden = "FORBIDDEN"
	codeVersion   = "VERSION"
	codeProtocol  = "PROTOCOL"
)

// message is every message of the protocol, both ways.
type message struct {
	Type     string      `json:"type"`
	ID       uint64      `json:"id"`
	Version  int         `json:"version,omitempty"`
	Role     string      `json:"role,omitempty"`
	TakeOver bool        `json:"take_over,omitempty"`
	PID      int         `json:"pid,omitempty"`
	Count    int         `json:"count,omitempty"`
	Capacity int         `json:"capacity,omitempty"`
	After    *uint64     `json:"after,omitempty"`
	Entries  []wireEntry `json:"entries,omitempty"`
	Stats    []wireStat  `json:"stats,omitempty"`
	IDs      []uint64    `json:"ids,omitempty"`
	More     bool        `json:"more,omitempty"`
	Code     string      `json:"error_code,omitempty"`
	Error    string      `json:"error_message,omitempty"`
}

type wireEntry struct {
	ID    uint64 `json:"id"`
	Label string `json:"label,omitempty"`
}

type wireStat struct {
	ID             uint64 `json:"id"`
	Label          string `json:"label,omitempty"`
	Bytes          int64  `json:"bytes,omitempty"`
	AllocatedBytes int64  `json:"allocated_bytes,omitempty"`
}

// failure turns an error message into the error that callers branch on.
func (m *message) failure() error {
	switch m.Code {
	case codeHeld:
		return &HeldError{PID: m.PID, Reason: m.Error}
	case codeForbidden:
		return ErrForbidden
	case codeVersion:
		return ErrVersion
	default:
		return errors.New("vault: " + m.Error)
	}
}

// wireConfig limits both ends: messages are short.
func wireConfig(guard func([]byte) error) fdwire.Config {
	return fdwire.Config{
		MaxFrameBytes: 128 << 10,
		MaxFDs:        maxBatch,
		QueueBytes:    1 << 20,
		QueueMessages: 256,
		Guard:         guard,
	}
}

// send encodes and sends; a failure closes the connection, which its reader sees.
func send(c *fdwire.Conn, m *message, fds []int, done func()) {
	p, err := fdwire.Encode(m)
	if err != nil {
		// Only a message beyond the limits fails to encode, and ours are bounded.
		fdwire.Descriptors(fds).Close()
		_ = c.Close()
		return
	}
	_ = c.Send(fdwire.Message{Packet: p, FDs: fds, Done: done})
}
