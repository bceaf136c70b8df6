package codec

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
)

// Request is one decoded command.
type Request struct {
	// Action is the action's own name, also where an older one was used.
	Action schemas.Action
	Spec   *schemas.Spec
	// RequestID is the client's, if Chosen, or one made here.
	RequestID string
	Chosen    bool
	// Data points to the action's request type, with defaults filled in.
	Data any
	// Wait is wait_ms: how long to wait for the end before answering queued or running.
	// It is zero for actions that have none.
	Wait   time.Duration
	DryRun bool
}

// DecodeRequest reads a command that arrived on the subject of the given action
// (schemas.ActionCommand for the one that takes any). Where the error is not nil, the
// request is what is known by then, and its RequestID can always be answered with.
func DecodeRequest(payload []byte, f Format, subject schemas.Action) (Request, *schemas.Error) {
	req := Request{Action: subject}
	err := req.decode(payload, f)
	if req.RequestID == "" {
		req.RequestID = newRequestID()
	}
	return req, err
}

func (req *Request) decode(payload []byte, f Format) *schemas.Error {
	if len(payload) > schemas.MaxPayloadBytes {
		return schemas.Errorf(schemas.CodePayloadTooLarge, "the payload has %d bytes, %d are allowed", len(payload),
			schemas.MaxPayloadBytes)
	}
	var env envelope
	if err := env.read(payload, f); err != nil {
		req.RequestID, req.Chosen = env.requestID, env.requestID != ""
		return err
	}
	req.RequestID, req.Chosen = env.requestID, env.requestID != ""
	if err := req.resolve(env.action); err != nil {
		return err
	}
	return req.decodeData(env.data, f)
}

// newRequestID names a command whose client did not. It is told to that client and stands in
// events and logs; nobody gets anything for knowing it, so it need not be unguessable.
func newRequestID() string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40 // version 4
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// resolve finds the action from the subject's and the envelope's, which must agree.
func (req *Request) resolve(named string) *schemas.Error {
	subject := req.Action
	asked := schemas.Action(strings.TrimPrefix(named, "memory."))
	if subject == schemas.ActionCommand {
		if asked == "" {
			return fieldErrorf("action", "action is required on %s", schemas.AnyCommandSubject())
		}
		subject = asked
	}
	spec, ok := schemas.Lookup(subject)
	if !ok {
		return schemas.Errorf(schemas.CodeUnknownAction, "there is no action %s", printable(string(subject))).
			With("action", clip(string(subject)))
	}
	req.Action, req.Spec = spec.Action, spec
	if asked == "" {
		return nil
	}
	if other, ok := schemas.Lookup(asked); !ok || other != spec {
		return fieldErrorf("action", "action is %s, but the subject is that of %s", printable(named), spec.Action)
	}
	return nil
}

// decodeData reads the guarded data of a request whose action is known; empty means
// that there was none.
func (req *Request) decodeData(data []byte, f Format) *schemas.Error {
	if len(data) == 0 {
		data = emptyObject(f)
	}
	r := reader{b: data, msgpack: f == MsgPack}
	switch k := r.kind(); k {
	case kindNull:
		r = reader{b: emptyObject(f), msgpack: f == MsgPack}
	case kindObject:
	default:
		return wrongType("data", "an object", k)
	}
	p := planOf(req.Spec.Request, req.Spec.Changing)
	v := reflect.New(req.Spec.Request)
	d := decoding{r: &r, waitMs: schemas.DefaultWaitMs}
	if err := d.object(p, v.Elem(), true); err != nil {
		return err
	}
	req.Data = v.Interface()
	if check, ok := req.Data.(schemas.Validator); ok {
		if err := check.Validate(); err != nil {
			return err
		}
	}
	switch {
	case p.wait >= 0:
		req.Wait = time.Duration(v.Elem().Field(p.wait).Int()) * time.Millisecond
	case req.Spec.Changing:
		req.Wait = time.Duration(d.waitMs) * time.Millisecond
	}
	req.DryRun = d.dryRun
	return nil
}

// Digest is what makes two requests with one request_id the same: the action and its
// decoded data, with aliases and units normalised and defaults filled in, in
// either format, without wait_ms. It is the same in every process of one version.
// The request must have been decoded without an error.
func (req *Request) Digest() [sha256.Size]byte {
	var space [512]byte
	b := append(space[:0], req.Action...)
	b = append(b, 0)
	if req.DryRun {
		b = append(b, 1)
	}
	e := encoder{f: MsgPack, digest: true}
	return sha256.Sum256(e.append(b, req.Data))
}

// envelope is a payload taken apart; data is still encoded.
type envelope struct {
	requestID string
	action    string
	data      []byte
}

// read guards the payload and takes it apart. A payload without envelope is data.
func (env *envelope) read(payload []byte, f Format) *schemas.Error {
	if f == JSON {
		payload = trimSpace(payload)
	}
	if len(payload) == 0 {
		return nil
	}
	guard := GuardJSON
	if f == MsgPack {
		guard = Guard
	}
	if err := guard(payload); err != nil {
		return schemas.Errorf(schemas.CodeInvalidRequest, "the payload is not sound %s: %s", f, err)
	}
	r := reader{b: payload, msgpack: f == MsgPack}
	switch k := r.kind(); k {
	case kindNull:
		return nil
	case kindObject:
	default:
		return schemas.Errorf(schemas.CodeInvalidRequest, "a request is an object, not %s", k)
	}
	return env.split(&r, payload)
}

func (env *envelope) split(r *reader, payload []byte) *schemas.Error {
	const sawID, sawAction, sawData = 1, 2, 4
	var seen int
	var stranger, twice string
	var idErr, actionErr *schemas.Error
	strange := false
	c := r.enter()
	for r.more(&c) {
		key := r.key()
		var bit int
		switch string(key) {
		case "request_id":
			bit = sawID
		case "action":
			bit = sawAction
		case "data":
			bit = sawData
		default:
			name := ""
			if !strange {
				name = string(key)
			}
			r.kind() // goes over space
			start := r.at
			r.skip()
			if name == "parameters" && emptyValue(payload[start:r.at], r.msgpack) {
				continue
			}
			if !strange {
				strange, stranger = true, name
			}
			continue
		}
		if seen&bit != 0 && twice == "" {
			twice = string(key)
		}
		seen |= bit
		switch bit {
		case sawID:
			env.requestID, idErr = envelopeText(r, "request_id", schemas.MaxRequestIDBytes)
		case sawAction:
			env.action, actionErr = envelopeText(r, "action", schemas.MaxStringBytes)
		case sawData:
			r.kind() // goes over space
			start := r.at
			r.skip()
			env.data = payload[start:r.at]
		}
	}
	switch {
	case seen == 0:
		env.data = payload
	case idErr != nil:
		return idErr
	case twice != "":
		return fieldErrorf(twice, "%s is given twice", twice)
	case actionErr != nil:
		return actionErr
	case strange:
		return fieldErrorf(clip(stranger), "%s is not a field of the envelope: request_id, action, data", printable(stranger))
	}
	return nil
}

// envelopeText reads an optional string of the envelope.
func envelopeText(r *reader, field string, maxBytes int) (string, *schemas.Error) {
	switch k := r.kind(); k {
	case kindNull:
		r.skip()
		return "", nil
	case kindString:
	default:
		r.skip()
		return "", wrongType(field, "a string", k)
	}
	s, ok := r.bytes()
	switch {
	case !ok:
		return "", fieldErrorf(field, "%s is not UTF-8", field)
	case len(s) > maxBytes:
		return "", fieldErrorf(field, "%s is longer than %d bytes", field, maxBytes)
	case hasControl(s):
		return "", fieldErrorf(field, "%s holds a control character", field)
	}
	return string(s), nil
}

// emptyValue reports whether a guarded value is null or an empty object.
func emptyValue(b []byte, msgpack bool) bool {
	d := decoding{r: &reader{b: b, msgpack: msgpack}}
	return d.emptyParameters()
}

func emptyObject(f Format) []byte {
	if f == MsgPack {
		return []byte{0x80}
	}
	return []byte("{}")
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// printable quotes what a client sent for an error message, cut to a sane length.
func printable(s string) string { return fmt.Sprintf("%q", clip(s)) }

func clip(s string) string {
	const longest = 64
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
