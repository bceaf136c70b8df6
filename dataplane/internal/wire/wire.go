// Package wire is the messages of the data socket, for its server and its Go client.
package wire

import (
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
)

// The types of message.
const (
	TypeHello    = "hello"
	TypeWelcome  = "welcome"
	TypeMap      = "map"
	TypeMapped   = "mapped"
	TypeUnmap    = "unmap"
	TypeUnmapped = "unmapped"
	TypeOffer    = "offer"
	TypeOffered  = "offered"
	TypePing     = "ping"
	TypePong     = "pong"
	TypeRevoke   = "revoke"
	TypeError    = "error"
)

// MaxSegments is how many segments, each with its descriptor, one message carries.
const MaxSegments = 128

// Hello opens a connection, or takes a session up again.
type Hello struct {
	Type        string   `json:"type"`
	ID          uint64   `json:"id"`
	Client      string   `json:"client,omitempty"`
	Version     string   `json:"version,omitempty"`
	SessionID   string   `json:"session_id,omitempty"`
	ResumeToken string   `json:"resume_token,omitempty"`
	Held        []string `json:"held"` // nil: nothing is said of it
}

// Welcome answers Hello.
type Welcome struct {
	Type        string   `json:"type"`
	ID          uint64   `json:"id"`
	SessionID   string   `json:"session_id"`
	ResumeToken string   `json:"resume_token"`
	Node        string   `json:"node"`
	BootID      string   `json:"boot_id"`
	NATSURL     string   `json:"nats_url"`
	Resumed     bool     `json:"resumed"`
	Lost        []string `json:"lost"`
}

// Map redeems a claim.
type Map struct {
	Type  string `json:"type"`
	ID    uint64 `json:"id"`
	Claim string `json:"claim"`
	Mode  string `json:"mode,omitempty"`
}

// Mapped is one part of the answer to Map.
type Mapped struct {
	Type         string            `json:"type"`
	ID           uint64            `json:"id"`
	AllocationID string            `json:"allocation_id"`
	Kind         string            `json:"kind"`
	DeviceUUID   string            `json:"device_uuid"`
	SizeBytes    int64             `json:"size_bytes"`
	Segments     []schemas.Segment `json:"segments"`
	// Tensors are a list of schemas.Tensor, packed: they are the same for everybody who maps.
	Tensors fdwire.Part `json:"tensors"`
	More    bool        `json:"more,omitempty"`
}

// Unmap and Unmapped name the grant; so does the client's answer to Revoke.
type Unmap struct {
	Type         string `json:"type"`
	ID           uint64 `json:"id"`
	AllocationID string `json:"allocation_id,omitempty"`
}

// Offer brings a file for load_model.
type Offer struct {
	Type string `json:"type"`
	ID   uint64 `json:"id"`
	Name string `json:"name"`
}

// Offered answers Offer.
type Offered struct {
	Type      string `json:"type"`
	ID        uint64 `json:"id"`
	FileClaim string `json:"file_claim"`
}

// Revoke asks a client to give a grant back.
type Revoke struct {
	Type         string `json:"type"`
	ID           uint64 `json:"id"`
	AllocationID string `json:"allocation_id"`
	DeadlineMS   int64  `json:"deadline_ms"`
	Reason       string `json:"reason"`
}

// Failure answers a request that failed.
type Failure struct {
	Type    string       `json:"type"`
	ID      uint64       `json:"id"`
	Code    schemas.Code `json:"error_code"`
	Message string       `json:"error_message"`
	Status  int          `json:"status_code"`
}
