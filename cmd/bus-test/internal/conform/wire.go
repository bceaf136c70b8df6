package conform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/schemas"
)

// patience bounds every wait; nothing is expected to take nearly as long.
const patience = 20 * time.Second

// format is one of the two encodings of the contract.
type format struct {
	name, mime string
	encode     func(any) ([]byte, error)
	decode     func([]byte) (any, error)
}

var formats = []format{
	{"json", "application/json", json.Marshal, decodeJSON},
	{"msgpack", "application/msgpack", encodeMsgPack, decodeMsgPack},
}

// decodeJSON gives the same kinds of values as decodeMsgPack.
func decodeJSON(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("something after the value")
	}
	return plain(v), nil
}

func plain(v any) any {
	switch x := v.(type) {
	case object:
		for k := range x {
			x[k] = plain(x[k])
		}
	case []any:
		for i := range x {
			x[i] = plain(x[i])
		}
	case json.Number:
		if n, err := strconv.ParseInt(string(x), 10, 64); err == nil {
			return n
		}
		f, _ := x.Float64()
		return f
	}
	return v
}

// unmet is what a check wanted and did not get; it unwinds the check.
type unmet struct{ why string }

// fail ends the check.
func fail(f string, args ...any) { panic(unmet{fmt.Sprintf(f, args...)}) }

// answer is one reply, its envelope and headers already found to be in order.
type answer struct {
	ok        bool
	data      object
	code      schemas.Code
	message   string
	details   object
	requestID string
}

// String says what was answered, in short.
func (a answer) String() string {
	if a.ok {
		return fmt.Sprintf("success, %v", a.data)
	}
	return fmt.Sprintf("%s (%s) %v", a.code, a.message, a.details)
}

// caller gives commands in one format.
type caller struct {
	*world
	f format
}

// change alters an envelope before it is sent.
type change func(object)

// id names the request.
func id(s string) change { return func(env object) { env["request_id"] = s } }

// ask gives a command in an envelope.
func (c caller) ask(a schemas.Action, data object, changes ...change) answer {
	return c.askOn(schemas.CommandSubject(a), a, data, changes...)
}

func (c caller) askOn(subject string, a schemas.Action, data object, changes ...change) answer {
	env := object{"request_id": c.nextID()}
	if data != nil {
		env["data"] = data
	}
	for _, f := range changes {
		f(env)
	}
	got := c.raw(subject, a, c.bytes(env), nil)
	if want, named := env["request_id"].(string); named && got.requestID != want {
		fail("asked as %q, answered as %q", want, got.requestID)
	}
	return got
}

func (c caller) bytes(v any) []byte {
	b, err := c.f.encode(v)
	if err != nil {
		fail("%v", err)
	}
	return b
}

// raw sends a payload and reads the answer. The action says what the reply's data must look
// like; "" looks at its envelope alone.
func (c caller) raw(subject string, a schemas.Action, payload []byte, header nats.Header) answer {
	if header == nil {
		header = nats.Header{"Content-Type": {c.f.mime}}
	}
	m, err := c.nc.RequestMsg(&nats.Msg{Subject: subject, Data: payload, Header: header}, patience)
	if err != nil {
		fail("%s: %v", subject, err)
	}
	got := c.read(m)
	if a != "" {
		c.fits(a, got)
	}
	c.note(a, got)
	return got
}

// read checks an envelope and its headers.
func (c caller) read(m *nats.Msg) answer {
	v, err := c.f.decode(m.Data)
	env, ok := v.(object)
	if err != nil || !ok {
		fail("the answer %.80q is no object in %s: %v", m.Data, c.f.name, err)
	}
	if got := m.Header.Get("Content-Type"); c.f.name != "json" && got != c.f.mime {
		fail("answered as %q", got)
	}
	a := answer{}
	a.ok, _ = env["success"].(bool)
	a.requestID = text(env, "request_id")
	if misfit(timeType, "timestamp", env["timestamp"]) != "" || text(env, "node") == "" || c.node != "" && text(env, "node") != c.node || a.requestID == "" {
		fail("the envelope %v", env)
	}
	names := []string{"success", "request_id", "timestamp", "node", "data"}
	if a.ok {
		a.data, ok = env["data"].(object)
	} else {
		names = []string{"success", "request_id", "timestamp", "node", "error_code", "error_message", "status_code", "details"}
		a.code, a.message = schemas.Code(text(env, "error_code")), text(env, "error_message")
		a.details, _ = env["details"].(object)
		if s := headerFault(m.Header, a, num(env, "status_code")); s != "" {
			fail("%s", s)
		}
	}
	for name := range env {
		ok = ok && strings.Contains(" "+strings.Join(names, " ")+" ", " "+name+" ")
	}
	if !ok {
		fail("the envelope %v", env)
	}
	return a
}

// headerFault says what of an error's headers or codes is not as the contract has it.
func headerFault(h nats.Header, a answer, status int64) string {
	switch {
	case a.code == "" || a.message == "":
		return "neither success nor error"
	case status != int64(a.code.Status()):
		return fmt.Sprintf("%s with status_code %d", a.code, status)
	case h.Get("Nats-Service-Error-Code") != fmt.Sprint(status):
		return fmt.Sprintf("%s with the header Nats-Service-Error-Code: %q", a.code, h.Get("Nats-Service-Error-Code"))
	case !strings.HasPrefix(h.Get("Nats-Service-Error"), string(a.code)):
		return fmt.Sprintf("%s with the header Nats-Service-Error: %q", a.code, h.Get("Nats-Service-Error"))
	}
	return ""
}

// expect wants a code, or success for "".
func (a answer) expect(code schemas.Code) answer {
	if a.code != code {
		fail("answered %s", a)
	}
	return a
}

// names wants details.field to be one of the names, or to lie below it.
func (a answer) names(fields ...string) {
	got := text(a.details, "field")
	for _, f := range fields {
		if got == f || strings.HasPrefix(got, f+".") {
			return
		}
	}
	fail("details.field is %q, not %q: %s", got, fields, a)
}

// do gives a command that must be done at once, and returns its data.
func (c caller) do(a schemas.Action, data object, changes ...change) object {
	got := c.ask(a, data, changes...).expect("")
	if st := text(got.data, "status"); st == "queued" || st == "running" {
		fail("%s is %s: %v", a, st, got.data)
	}
	return got.data
}

// at digs a value out of nested objects and lists.
func at(v any, path string) any {
	for p := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case object:
			v = x[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func text(v any, path string) string { s, _ := at(v, path).(string); return s }

func num(v any, path string) int64 { n, _ := at(v, path).(int64); return n }

func timeOf(v any, path string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text(v, path))
	if err != nil {
		fail("%s: %v", path, err)
	}
	return t
}

func list(v any, path string) []any { l, _ := at(v, path).([]any); return l }

// want compares values dug out of a reply, given in pairs of path and value.
func want(v any, pairs ...any) {
	for i := 0; i < len(pairs); i += 2 {
		path, right := pairs[i].(string), pairs[i+1]
		if n, ok := right.(int); ok {
			right = int64(n)
		}
		got := at(v, path)
		if f, ok := got.(float64); ok {
			if n, ok := right.(int64); ok && f == float64(n) {
				continue
			}
		}
		if !reflect.DeepEqual(got, right) {
			fail("%s is %v, not %v, in %v", path, got, right, v)
		}
	}
}
