package actors

import (
	"crypto/rand"
	"encoding/hex"
	"hash/fnv"
	"strings"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
)

// tagOf is a device's short name: 24 bits of a hash of its id. It is part of every
// allocation id (UUID version 8), claim and vault id, so that what a client names leads
// to its device without a table that all devices would have to share.
func tagOf(device string) uint32 {
	f := fnv.New32a()
	f.Write([]byte(device))
	return f.Sum32() & 0xffffff
}

// vaultID names a segment in the vault; the segments of a device count from 256, so
// that it never meets the small ids of the ledger's regions.
func vaultID(tag uint32, segment uint64) uint64 { return uint64(tag)<<40 | segment }

// idsOf makes allocation ids of a device, for one goroutine: 24 bits of tag, 98 random bits.
func idsOf(random func([]byte), tag uint32) func() uuid.UUID {
	var id uuid.UUID
	return func() uuid.UUID {
		random(id[:])
		id[0], id[1], id[2] = byte(tag>>16), byte(tag>>8), byte(tag)
		id[6] = id[6]&0x0f | 0x80 // version 8: for uses of one's own (RFC 9562)
		id[8] = id[8]&0x3f | 0x80
		return id
	}
}

func newID(random func([]byte), tag uint32) uuid.UUID { return idsOf(random, tag)() }

// lastID remembers the text of the id that was asked for last: the answer to a grant and the
// event of it have the same.
type lastID struct {
	id   uuid.UUID
	text string
}

func (l *lastID) of(id uuid.UUID) string {
	if l.id != id || l.text == "" {
		l.id, l.text = id, id.String()
	}
	return l.text
}

func tagOfID(id uuid.UUID) uint32 {
	return uint32(id[0])<<16 | uint32(id[1])<<8 | uint32(id[2])
}

// claimsOf is what every claim of a device begins with: its tag. A secret follows.
func claimsOf(tag uint32) string {
	return hex.EncodeToString([]byte{byte(tag >> 16), byte(tag >> 8), byte(tag)})
}

func splitClaim(claim string) (tag uint32, secret string, ok bool) {
	if len(claim) < 6 || len(claim) > 128 {
		return 0, "", false
	}
	b, err := hex.DecodeString(claim[:6])
	if err != nil {
		return 0, "", false
	}
	return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]), claim[6:], true
}

func machineRandom(b []byte) {
	rand.Read(b) // never fails: the runtime ends the process instead
}

// buffered draws from random in larger pieces, for one goroutine: a grant needs two small
// draws, and each costs as much as one of this size. What was handed out is not kept.
func buffered(random func([]byte)) func([]byte) {
	var space [512]byte
	var left []byte
	return func(b []byte) {
		if len(b) > len(space) {
			random(b)
			return
		}
		if len(b) > len(left) {
			left = space[:]
			random(left)
		}
		n := copy(b, left)
		clear(left[:n])
		left = left[n:]
	}
}

// deviceOfID finds the device that an allocation id names. An id may carry its node.
func (h *House) deviceOfID(s string) (*deviceActor, uuid.UUID, *schemas.Error) {
	bare := s
	if i := strings.IndexByte(s, '.'); i >= 0 && s[:i] == h.cfg.Node {
		bare = s[i+1:]
	}
	id, err := uuid.Parse(bare)
	if err != nil || len(bare) != 36 {
		return nil, id, schemas.Errorf(schemas.CodeAllocationNotFound, "no allocation %q", s)
	}
	tag := tagOfID(id)
	for _, d := range h.devices {
		if d.tag == tag {
			return d, id, nil
		}
	}
	for _, l := range h.cfg.LostDevices {
		if tagOf(l.ID) == tag {
			return nil, id, h.lostDevice(l.ID)
		}
	}
	if name := h.absentOfID(id); name != "" {
		return nil, id, schemas.Errorf(schemas.CodeAllocationNotFound, "no allocation %s%s", id, missing(name))
	}
	return nil, id, schemas.Errorf(schemas.CodeAllocationNotFound, "no allocation %s", id)
}

// device finds a device by its id, which may carry its node.
func (h *House) device(id string) (*deviceActor, *schemas.Error) {
	bare := strings.TrimPrefix(id, h.cfg.Node+"/")
	if d, ok := h.byID[bare]; ok {
		return d, nil
	}
	if err := h.lostDevice(bare); err != nil {
		return nil, err
	}
	why := ""
	if h.absent.names[bare] {
		why = missing(bare)
	}
	return nil, schemas.Errorf(schemas.CodeInvalidDevice, "no device %q%s", id, why).With("field", "device_id").With("devices", h.deviceIDs())
}

func (h *House) deviceIDs() []string {
	ids := make([]string, len(h.devices))
	for i, d := range h.devices {
		ids[i] = d.id
	}
	return ids
}

// pick finds the device that a request means: the one it names, or the only one of the
// type it asks for.
func (h *House) pick(id string, kind schemas.DeviceType) (*deviceActor, *schemas.Error) {
	if id != "" {
		d, err := h.device(id)
		if err == nil && kind != "" && kind != schemas.DeviceTypeUnknown && d.kind != kind {
			return nil, schemas.Errorf(schemas.CodeInvalidRequest, "device %s is of type %s, not %s", id, d.kind, kind).With("field", "allocation_type")
		}
		return d, err
	}
	var found *deviceActor
	for _, d := range h.devices {
		if kind != "" && kind != schemas.DeviceTypeUnknown && d.kind != kind {
			continue
		}
		if found != nil {
			return nil, schemas.Errorf(schemas.CodeInvalidRequest, "several devices fit: name one").With("field", "device_id").With("devices", h.deviceIDs())
		}
		found = d
	}
	if found == nil {
		return nil, schemas.Errorf(schemas.CodeInvalidDevice, "no device of type %s", kind).With("field", "allocation_type").With("devices", h.deviceIDs())
	}
	return found, nil
}

// some lists the device of an id, or all for "" and "all".
func (h *House) some(id string) ([]*deviceActor, *schemas.Error) {
	if id == "" || id == schemas.DeviceIDAll {
		return h.devices, nil
	}
	d, err := h.device(id)
	if err != nil {
		return nil, err
	}
	return []*deviceActor{d}, nil
}
