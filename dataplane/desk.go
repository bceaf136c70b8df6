package dataplane

import (
	"os"
	"time"

	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

// Desk is who decides. The server calls it from the connections' goroutines and holds
// no lock meanwhile; a method must not block. Each done is to be called exactly once,
// from any goroutine, the call's own included.
type Desk interface {
	// Hello opens a session, or resumes one. peer.PidFD is the Desk's from now on. conn
	// is valid until Ended, and harmless afterwards.
	Hello(peer fdwire.Peer, hello Hello, conn Conn, done func(Welcome, error))
	// Map redeems a claim for a session.
	Map(session, claim string, mode Mode, done func(*Mapping, error))
	// Unmap says that the client has unmapped a grant, of itself or because it was
	// asked to.
	Unmap(session, allocation string, done func(error))
	// Offer takes an open file for load_model, with the client's own rights to it, and
	// answers with a claim. The file is the Desk's from now on; it may be of any kind.
	Offer(session, name string, file *os.File, done func(claim string, err error))
	// Ended says that a session's connection is gone. A session that was resumed
	// on a newer connection does not end with the older one: compare conn.
	Ended(session string, conn Conn)
}

// Conn is how the Desk speaks to a client unasked. Its methods do not block, may be
// called from any goroutine, and do nothing once the connection is gone. Values are
// comparable.
type Conn interface {
	// Revoke asks for a grant back. The answer comes as Desk.Unmap.
	Revoke(allocation string, deadline time.Duration, reason string)
	// Close ends the connection. Ended follows.
	Close()
}

// Hello is what a client says of itself.
type Hello struct {
	// Client and Version name the program, for people.
	Client, Version string
	// SessionID and ResumeToken are of the session to resume; empty for a new one.
	SessionID, ResumeToken string
	// Held are the grants that the client still has mapped, and no others are; nil where
	// it says nothing of that.
	Held []string
}

// Welcome is the Desk's answer to Hello.
type Welcome struct {
	SessionID, ResumeToken string
	Node, BootID, NATSURL  string
	Resumed                bool
	// Lost are those of Hello.Held that the node knows nothing of, or that are not
	// the session's.
	Lost []string
}

// Mode is how a client may map a grant.
type Mode uint8

// The modes. The zero Mode is the one that can do no harm.
const (
	ReadOnly Mode = iota
	ReadWrite
)

// String is "ro" or "rw".
func (m Mode) String() string {
	if m == ReadWrite {
		return "rw"
	}
	return "ro"
}

// Mapping is what a claim is worth.
type Mapping struct {
	AllocationID string
	// Kind is memfd or cuda_vmm.
	Kind       string
	DeviceUUID string
	SizeBytes  int64
	// Segments in the order of the grant's bytes.
	Segments []Segment
	// Tensors of a model; a tensor's Segment is an index in Segments. A list that was handed over
	// must not change: it is packed once for all who map the model.
	Tensors []schemas.Tensor
}

// Segment is one descriptor of a mapping.
type Segment struct {
	// File is a description made for this session alone; see the driver's Export.
	File *os.File
	// SegmentBytes is the size of what File opens. The grant has SizeBytes of it from
	// Offset on.
	SegmentBytes, Offset, SizeBytes int64
}

// Close closes the files that are left.
func (m *Mapping) Close() {
	for i := range m.Segments {
		if f := m.Segments[i].File; f != nil {
			_ = f.Close()
			m.Segments[i].File = nil
		}
	}
}
