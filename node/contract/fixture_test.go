package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/vmihailenco/msgpack/v5"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
)

const mib = 1 << 20

// patience bounds every wait of a test; nothing is expected to take nearly as long.
const patience = 20 * time.Second

// format is one of the two encodings of the contract, done here by other means than the
// node's.
type format struct {
	name, mime string
	encode     func(any) ([]byte, error)
	decode     func([]byte) (any, error)
}

var formats = []format{
	{"json", "application/json", json.Marshal, decodeJSON},
	{"msgpack", "application/msgpack", msgpack.Marshal, decodeMsgPack},
}

func decodeJSON(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	err = d.Decode(&v)
	return plain(v), err
}

func decodeMsgPack(b []byte) (v any, err error) {
	err = msgpack.Unmarshal(b, &v)
	return plain(v), err
}

// plain makes the two decoders' values alike.
func plain(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = plain(x[k])
		}
	case []any:
		for i := range x {
			x[i] = plain(x[i])
		}
	case json.Number:
		if i, err := x.Int64(); err == nil {
			return i
		}
		f, _ := x.Float64()
		return f
	case float32:
		return float64(x)
	default:
		if r := reflect.ValueOf(v); r.CanInt() {
			return r.Int()
		} else if r.CanUint() {
			return int64(r.Uint())
		}
	}
	return v
}

// caller is a plain NATS client of a node in one format.
type caller struct {
	t    testing.TB
	n    *nodetest.Node
	nc   *nats.Conn
	f    format
	seen *collector
}

// gpu is a simulated device of 1 GiB whose faults a test may set.
func gpu(t testing.TB, id string) *sim.Driver {
	t.Helper()
	d, err := sim.New(sim.Config{ID: id, Bytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// drivers makes the node use these devices.
func drivers(ds ...device.Driver) nodetest.Option {
	return func(_ *node.Config, h *node.Hooks) { h.Drivers = ds }
}

func connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// inBoth runs a scenario in each format, each time with a node of its own.
func inBoth(t *testing.T, run func(*caller), options ...nodetest.Option) {
	t.Helper()
	t.Parallel()
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) { run(start(t, f, options...)) })
	}
}

func start(t testing.TB, f format, options ...nodetest.Option) *caller {
	t.Helper()
	// Many tests load what the next request has evicted: the guard, which would keep it for as long
	// as its load took, has tests of its own.
	quick := nodetest.Set(func(c *node.Config) { c.JetStream, c.GuardOff = false, true })
	n := nodetest.Start(t, append([]nodetest.Option{quick}, options...)...)
	nc := connect(t, n.Info().URL)
	c := &caller{t: t, n: n, nc: nc, f: f, seen: collect(t, nc)}
	return c
}

// on is the same client with another test.
func (c *caller) on(t testing.TB) *caller {
	d := *c
	d.t = t
	return &d
}

// answer is one reply, its envelope checked.
type answer struct {
	ok     bool
	data   obj
	code   string
	status int64
	detail obj
	text   string
}

type option func(*obj)

// id names the request.
func id(s string) option { return func(m *obj) { (*m)["request_id"] = s } }

// ask gives a command and checks the answer's envelope.
func (c *caller) ask(action string, in obj, options ...option) answer {
	c.t.Helper()
	return c.askOn("memory."+action, in, options...)
}

func (c *caller) askOn(subject string, in obj, options ...option) answer {
	c.t.Helper()
	env := obj{"request_id": nats.NewInbox(), "data": in}
	for _, o := range options {
		o(&env)
	}
	payload, err := c.f.encode(env)
	if err != nil {
		c.t.Fatal(err)
	}
	a := c.raw(subject, payload)
	if a.ok || a.code != "" {
		return a
	}
	c.t.Fatalf("%s: neither success nor error", subject)
	return a
}

// raw sends bytes in the caller's format and checks the answer's envelope.
func (c *caller) raw(subject string, payload []byte) answer {
	c.t.Helper()
	msg := &nats.Msg{Subject: subject, Data: payload, Header: nats.Header{"Content-Type": {c.f.mime}}}
	m, err := c.nc.RequestMsg(msg, patience)
	if err != nil {
		c.t.Fatalf("%s: %v", subject, err)
	}
	return c.read(subject, m)
}

func (c *caller) read(subject string, m *nats.Msg) answer {
	c.t.Helper()
	if got := m.Header.Get("Content-Type"); c.f.name != "json" && got != c.f.mime {
		c.t.Errorf("%s: answered as %q", subject, got)
	}
	v, err := c.f.decode(m.Data)
	if err != nil {
		c.t.Fatalf("%s: %v in %q", subject, err, m.Data)
	}
	env, ok := v.(obj)
	if !ok {
		c.t.Fatalf("%s answered %v", subject, v)
	}
	validReply(c.t, subject, env)
	a := answer{}
	a.ok, _ = env["success"].(bool)
	if s := misfitKind("t", "timestamp", env["timestamp"]); s != "" || env["node"] != "test" || env["request_id"] == "" {
		c.t.Errorf("%s: envelope %v: %s", subject, env, s)
	}
	want := 5
	if a.ok {
		a.data, ok = env["data"].(obj)
	} else {
		a.code, _ = env["error_code"].(string)
		a.text, _ = env["error_message"].(string)
		a.status, _ = env["status_code"].(int64)
		a.detail, _ = env["details"].(obj)
		if want = 7; env["details"] != nil {
			want++
		}
		ok = a.text != "" && a.status >= 400 && m.Header.Get("Nats-Service-Error-Code") == fmt.Sprint(a.status) &&
			strings.HasPrefix(m.Header.Get("Nats-Service-Error"), a.code)
	}
	if !ok || len(env) != want {
		c.t.Errorf("%s: envelope %v, headers %v", subject, env, m.Header)
	}
	return a
}

// do gives a command that must succeed, and checks its reply against the contract.
func (c *caller) do(action string, in obj, options ...option) obj {
	c.t.Helper()
	a := c.ask(action, in, options...)
	if !a.ok {
		c.t.Fatalf("%s %v: %s %s %v", action, in, a.code, a.text, a.detail)
	}
	c.fits(action, in, a.data)
	return a.data
}

// fits checks a reply's data against the contract.
func (c *caller) fits(action string, in, reply obj) {
	c.t.Helper()
	shape := "reply/" + strings.TrimPrefix(action, "get_model_status")
	if action == "get_model_status" {
		shape = "reply/model_status"
	}
	if in["dry_run"] == true {
		shape = "dry_run"
	} else if _, pending := reply["operation_id"]; pending {
		shape = "pending"
	}
	if s := misfit(shape, action, reply); s != "" {
		c.t.Errorf("%s: %s", action, s)
	}
	if st, has := reply["status"]; has && shape != "pending" && st != "completed" {
		c.t.Errorf("%s: status %v", action, st)
	}
}

// statuses are the status codes of the contract's error table.
var statuses = map[string]int64{
	"INVALID_TRANSFER_PARAMS": 400, "TRANSFER_NOT_FOUND": 404, "TRANSFER_FAILED": 500,
	"INVALID_REQUEST": 400, "INVALID_DEVICE": 404, "ALLOCATION_NOT_FOUND": 404, "MODEL_NOT_FOUND": 404, "OPERATION_NOT_FOUND": 404,
	"UNKNOWN_ACTION": 404, "MODEL_IN_USE": 409, "ALLOCATION_IN_USE": 409, "MODEL_CONFLICT": 409, "REQUEST_ID_REUSED": 409,
	"STALE_HANDLE": 410, "PAYLOAD_TOO_LARGE": 413, "UNSUPPORTED_MEDIA_TYPE": 415, "INVALID_MODEL": 422, "FILE_NOT_READABLE": 422,
	"BUSY": 429, "QUOTA_EXCEEDED": 429, "CANCELLED": 499, "NOT_IMPLEMENTED": 501, "OUT_OF_MEMORY": 503, "FORBIDDEN": 403, "DRAINING": 503,
}

// fails gives a command that must fail with the code, and returns the details.
func (c *caller) fails(code, action string, in obj, options ...option) obj {
	c.t.Helper()
	return c.refused(code, fmt.Sprintf("%s %v", action, in), c.ask(action, in, options...))
}

func (c *caller) refused(code, what string, a answer) obj {
	c.t.Helper()
	if a.ok || a.code != code || a.status != statuses[code] {
		c.t.Errorf("%s: %s %d %q %v, not %s %d", what, a.code, a.status, a.text, a.data, code, statuses[code])
	}
	return a.detail
}

// at digs a value out of nested objects and lists.
func at(v any, path string) any {
	for _, p := range strings.Split(path, ".") {
		switch x := v.(type) {
		case obj:
			v = x[p]
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(x) {
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

func num(v any, path string) int64 { i, _ := at(v, path).(int64); return i }

func size(v any, path string) int { l, _ := at(v, path).([]any); return len(l) }

// want compares values dug out of a reply; integers may be given as int.
func (c *caller) want(v any, pairs ...any) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		path, want := pairs[i].(string), plain(pairs[i+1])
		got := at(v, path)
		if g, ok := got.(float64); ok {
			if w, ok := want.(int64); ok && g == float64(w) {
				continue
			}
		}
		if !reflect.DeepEqual(got, want) {
			c.t.Errorf("%s is %v, not %v, in %v", path, got, want, v)
		}
	}
}

// grant allocates with defaults and more.
func (c *caller) grant(bytes int64, more ...any) obj {
	c.t.Helper()
	in := obj{"device_id": "gpu-0", "size_bytes": bytes}
	for i := 0; i < len(more); i += 2 {
		in[more[i].(string)] = more[i+1]
	}
	return c.do("allocate", in)
}

func (c *caller) release(grant obj) {
	c.t.Helper()
	c.do("deallocate", obj{"allocation_id": text(grant, "allocation_id")})
}

// memory is a device's memory_info.
func (c *caller) memory() obj {
	c.t.Helper()
	return c.do("get_status", obj{"device_id": "gpu-0"})["memory_info"].(obj)
}

// session opens a session on the data socket.
func (c *caller) session(onRevoke func(data.Revocation)) *data.Client {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := data.Dial(ctx, data.Config{SocketPath: c.n.Info().DataSocket, Name: "contract", OnRevoke: onRevoke})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { d.Close() })
	return d
}

// maps redeems a handle's claim.
func (c *caller) maps(d *data.Client, handle any, mode data.Mode) *data.Mapping {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := d.Map(ctx, text(handle, "claim"), mode)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *caller) unmaps(d *data.Client, m *data.Mapping) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.Unmap(ctx, m); err != nil {
		c.t.Fatal(err)
	}
}

// t0 is a context for one call.
func t0(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
