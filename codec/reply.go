package codec

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/isobar-project/isobar/schemas"
)

// Reply is the answer to one command.
type Reply struct {
	RequestID string
	Timestamp time.Time
	Node      string
	// Data is the reply data of a success; nil is an empty object.
	Data any
	// Err is set for a failure, which has no data.
	Err *schemas.Error
}

// EncodeReply appends the envelope of a success or a failure to dst.
func EncodeReply(dst []byte, f Format, r Reply) []byte {
	e := encoder{f: f}
	members := 5
	if r.Err != nil {
		members = 8
	}
	dst, fix := e.openObject(dst, members)
	dst = e.bool(e.key(dst, "success", 0), r.Err == nil)
	dst = e.string(e.key(dst, "request_id", 1), r.RequestID)
	dst = e.time(e.key(dst, "timestamp", 2), r.Timestamp)
	dst = e.string(e.key(dst, "node", 3), r.Node)
	switch {
	case r.Err != nil:
		dst = e.string(e.key(dst, "error_code", 4), string(r.Err.Code))
		dst = e.string(e.key(dst, "error_message", 5), r.Err.Message)
		dst = e.int(e.key(dst, "status_code", 6), int64(r.Err.Status))
		dst = e.append(e.key(dst, "details", 7), r.Err.Details)
	case r.Data == nil:
		dst, inner := e.openObject(e.key(dst, "data", 4), 0)
		dst = e.closeObject(dst, inner, 0)
		return e.closeObject(dst, fix, members)
	default:
		dst = e.append(e.key(dst, "data", 4), r.Data)
	}
	return e.closeObject(dst, fix, members)
}

// EncodeEvent appends an event to dst. Events are always JSON.
func EncodeEvent(dst []byte, ev *schemas.Event) []byte { return Append(dst, JSON, ev) }

// Call is a command as a client sends it.
type Call struct {
	RequestID string // may be empty
	Action    schemas.Action
	// Data is a request struct or a pointer to one, a map[string]any, or nil.
	Data any
	// Wait is wait_ms, for a changing action; nil leaves it to the node.
	Wait *time.Duration
	// DryRun asks what would happen.
	DryRun bool
}

// EncodeRequest appends the envelope of a command to dst. It fails if Data is not an object.
func EncodeRequest(dst []byte, f Format, c Call) ([]byte, error) {
	e := encoder{f: f}
	members := 0
	dst, fix := e.openObject(dst, 3)
	if c.RequestID != "" {
		dst = e.string(e.key(dst, "request_id", members), c.RequestID)
		members++
	}
	if c.Action != "" {
		dst = e.string(e.key(dst, "action", members), schemas.CommandSubject(c.Action))
		members++
	}
	dst = e.key(dst, "data", members)
	members++
	dst, err := e.callData(dst, c)
	if err != nil {
		return nil, err
	}
	return e.closeObject(dst, fix, members), nil
}

// callData writes the request's own fields and, in the same object, wait_ms and dry_run.
func (e *encoder) callData(dst []byte, c Call) ([]byte, error) {
	var fix, n int
	v := reflect.Indirect(reflect.ValueOf(c.Data))
	switch data, isMap := c.Data.(map[string]any); {
	case isMap:
		whole := make(map[string]any, len(data)+2)
		for key, value := range data {
			whole[key] = value
		}
		if c.Wait != nil {
			whole["wait_ms"] = c.Wait.Milliseconds()
		}
		if c.DryRun {
			whole["dry_run"] = true
		}
		return e.append(dst, whole), nil
	case !v.IsValid():
		dst, fix = e.openObject(dst, 2)
	case v.Kind() == reflect.Struct && v.Type() != timeType:
		l := layoutOf(v.Type())
		dst, fix = e.openObject(dst, len(l.fields)+2)
		dst, n = e.fields(dst, l, addressOf(v))
	default:
		return nil, fmt.Errorf("codec: the data of a request is an object, not %T", c.Data)
	}
	if c.Wait != nil {
		dst = e.int(e.key(dst, "wait_ms", n), c.Wait.Milliseconds())
		n++
	}
	if c.DryRun {
		dst = e.bool(e.key(dst, "dry_run", n), true)
		n++
	}
	return e.closeObject(dst, fix, n), nil
}

// ReplyHeader is what a reply says beside its data.
type ReplyHeader struct {
	Success   bool      `json:"success"`
	RequestID string    `json:"request_id"`
	Timestamp time.Time `json:"timestamp"`
	Node      string    `json:"node"`
}

// replyEnvelope is a whole reply. Data is the pointer to read into, or nil.
type replyEnvelope struct {
	ReplyHeader
	Data         any            `json:"data"`
	ErrorCode    schemas.Code   `json:"error_code"`
	ErrorMessage string         `json:"error_message"`
	StatusCode   int            `json:"status_code"`
	Details      map[string]any `json:"details"`
}

// DecodeReply reads a reply. The data of a success goes into out, a pointer, unless
// that is nil; fields that out has not are ignored. A failure is returned as a
// *schemas.Error; any other error means that the payload is not a reply.
func DecodeReply(payload []byte, f Format, out any) (ReplyHeader, error) {
	var env replyEnvelope
	if out != nil {
		env.Data = out
	}
	if err := Unmarshal(payload, f, &env); err != nil {
		return ReplyHeader{}, err
	}
	switch {
	case env.Success:
		return env.ReplyHeader, nil
	case env.ErrorCode == "":
		return env.ReplyHeader, errors.New("codec: not a reply: neither a success nor an error_code")
	}
	return env.ReplyHeader, &schemas.Error{Code: env.ErrorCode, Message: env.ErrorMessage, Status: env.StatusCode, Details: env.Details}
}
