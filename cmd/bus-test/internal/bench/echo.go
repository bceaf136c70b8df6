package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
	"github.com/isobar-project/isobar/schemas"
)

// echoPayload is a request of 138 bytes, as a client would send it.
var echoPayload = []byte(`{"request_id":"8c4b8a52-53a4-4a0e-9a7e-1f0c7c1a3b5d","data":{"device_id":"ram-0","size_bytes":1048576,"purpose":"kv-cache","clear":false}}`)[:138:138]

// echoSubject is where the responder listens; the suffix keeps runs on one server apart.
func echoSubject(suffix string) string { return "bus_test.echo." + suffix }

// echo is a raw echo over a server: what a command cannot be cheaper than by far.
type echo struct {
	nc      *nats.Conn
	subject string
}

// newEcho makes one, client and responder on connections of their own.
func newEcho(w *world, url string) (*echo, error) {
	responder, err := w.dial(url)
	if err != nil {
		return nil, err
	}
	e := &echo{subject: echoSubject(nats.NewInbox()[len(nats.InboxPrefix):])}
	if _, err := responder.Subscribe(e.subject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return nil, err
	}
	if err := responder.Flush(); err != nil {
		return nil, err
	}
	e.nc, err = w.dial(url)
	return e, err
}

func (e *echo) ask(int) error {
	_, err := e.nc.Request(e.subject, echoPayload, requestTimeout)
	return err
}

// echoLine is the echo that the plain lines are compared with.
type echoLine struct {
	w         *world
	e         *echo
	one, many series
}

func (l *echoLine) open(_ context.Context, w *world) (err error) {
	l.w = w
	l.e, err = newEcho(w, w.url)
	return err
}

func (l *echoLine) slice(context.Context, int) error {
	if err := both(l.w, &l.one, &l.many, 1, l.e.ask); err != nil {
		return err
	}
	return nil
}

// both takes a slice with one in flight and one with 64; each call of ask is so many commands.
func both(w *world, one, many *series, commands int, ask func(worker int) error) error {
	n := w.count(400, 20)
	took, wall, err := measure.Run(1, n, ask)
	if err != nil {
		return err
	}
	one.add(took, wall, n*commands)
	n = w.count(6400, 128) / commands
	took, wall, err = measure.Run(64, n, ask)
	if err != nil {
		return err
	}
	many.add(took, wall, n*commands)
	return nil
}

func (l *echoLine) report(r *Report) {
	r.Raw["echo_1"], r.Raw["echo_64"] = l.one.all.Summary(l.one.wall), l.many.all.Summary(l.many.wall)
}

func (l *echoLine) close() {}

// queryLine is get_pressure: the cheapest question.
type queryLine struct {
	w         *world
	nc        *nats.Conn
	subject   string
	payload   []byte
	one, many series
}

func (l *queryLine) open(_ context.Context, w *world) (err error) {
	l.w, l.subject = w, schemas.CommandSubject(schemas.ActionGetPressure)
	l.payload = fmt.Appendf(nil, `{"data":{"device_id":%q}}`, w.device)
	l.nc, err = w.dial(w.url)
	return err
}

func (l *queryLine) ask(int) error { _, err := ask(l.nc, l.subject, l.payload); return err }

func (l *queryLine) slice(context.Context, int) error { return both(l.w, &l.one, &l.many, 1, l.ask) }

func (l *queryLine) report(r *Report) {
	r.Raw["get_pressure_1"], r.Raw["get_pressure_64"] = l.one.all.Summary(l.one.wall), l.many.all.Summary(l.many.wall)
	if l.w.echo != nil {
		r.Raw["get_pressure_p50_over_echo"] = round(over(l.one.p50s, l.w.echo.one.p50s))
		r.Raw["get_pressure_throughput_over_echo"] = round(over(l.many.rates, l.w.echo.many.rates))
	}
}

func (l *queryLine) close() {}

// ask sends a command and takes nothing but success, without decoding more than that.
func ask(nc *nats.Conn, subject string, payload []byte) ([]byte, error) {
	m, err := nc.Request(subject, payload, requestTimeout)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	if len(m.Data) < 15 || !strings.HasPrefix(string(m.Data[:15]), `{"success":true`) {
		return nil, fmt.Errorf("%s: %s", subject, m.Data[:min(len(m.Data), 500)])
	}
	return m.Data, nil
}
