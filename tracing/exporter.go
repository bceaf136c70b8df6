package tracing

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isobar-project/isobar/clock"
)

const (
	// Queue is how many spans wait at most: about a megabyte.
	Queue = 4096
	// batch is how many go in one request, period how long a span waits for others.
	batch  = 512
	period = time.Second
	// timeout bounds one request.
	timeout = 5 * time.Second
)

// Span is one span that has ended.
type Span struct {
	Trace  [16]byte
	ID     [8]byte
	Parent [8]byte // zero for a root
	Name   string
	// Server says that it answers a request from elsewhere.
	Server     bool
	Start, End time.Time
	// Error is the error's code; "" is success.
	Error      string
	Attributes []Attribute
}

// Attribute is a fact about a span. Those without a value are left out.
type Attribute struct{ Key, Value string }

// Config says where spans go.
type Config struct {
	// Endpoint is the collector's URL; without a path spans go to /v1/traces.
	Endpoint string
	// Resource says who sends.
	Resource []Attribute
	Clock    clock.Clock
	Log      *slog.Logger
}

// Exporter sends spans. Its methods may be called from any goroutine.
type Exporter struct {
	cfg    Config
	url    string
	client *http.Client
	queue  chan Span
	due    chan struct{}
	stop   context.CancelFunc
	done   chan struct{}
	once   sync.Once

	exported, dropped atomic.Uint64
	armed             atomic.Bool
}

// CheckEndpoint says what is wrong with an endpoint.
func CheckEndpoint(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not the URL of a collector: write it as http://127.0.0.1:4318", s)
	}
	return nil
}

// New starts an exporter; Close ends it.
func New(c Config) (*Exporter, error) {
	if err := CheckEndpoint(c.Endpoint); err != nil {
		return nil, err
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, err
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	x := &Exporter{cfg: c, url: u.String(), client: &http.Client{Timeout: timeout, Transport: &http.Transport{MaxIdleConns: 1}},
		queue: make(chan Span, Queue), due: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	go x.run(ctx)
	return x, nil
}

// Add takes a span, or drops it if too many wait.
func (x *Exporter) Add(s Span) {
	select {
	case x.queue <- s:
	default:
		x.dropped.Add(1)
		return
	}
	if len(x.queue) >= batch {
		x.wake()
	} else if x.armed.CompareAndSwap(false, true) {
		x.cfg.Clock.AfterFunc(period, func() {
			x.armed.Store(false)
			x.wake()
		})
	}
}

func (x *Exporter) wake() {
	select {
	case x.due <- struct{}{}:
	default:
	}
}

// Stats counts spans since the start.
func (x *Exporter) Stats() (exported, dropped uint64) { return x.exported.Load(), x.dropped.Load() }

// Close sends what waits, as far as the collector takes it within a request's timeout.
func (x *Exporter) Close() {
	x.once.Do(x.stop)
	<-x.done
}

func (x *Exporter) run(ctx context.Context) {
	defer close(x.done)
	defer x.client.CloseIdleConnections()
	for {
		select {
		case <-x.due:
			x.send()
		case <-ctx.Done():
			x.send()
			return
		}
	}
}

// send posts everything that waits now.
func (x *Exporter) send() {
	for {
		var spans []Span
		for len(spans) < batch {
			select {
			case s := <-x.queue:
				spans = append(spans, s)
				continue
			default:
			}
			break
		}
		if len(spans) == 0 {
			return
		}
		if err := x.post(spans); err != nil {
			x.dropped.Add(uint64(len(spans)))
			x.cfg.Log.Warn("spans were not taken", "spans", len(spans), "endpoint", x.url, "error", err)
			return
		}
		x.exported.Add(uint64(len(spans)))
	}
}

func (x *Exporter) post(spans []Span) error {
	body, err := json.Marshal(x.encode(spans))
	if err != nil {
		return err
	}
	r, err := x.client.Post(x.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<16)) // so that the connection is used again
	if r.StatusCode/100 != 2 {
		return fmt.Errorf("the collector answered %s", r.Status)
	}
	return nil
}

// The JSON form of OTLP, as far as it is used: ids in hexadecimal, times as strings of
// nanoseconds.
type (
	object map[string]any
	array  []any
)

func (x *Exporter) encode(spans []Span) object {
	list := make(array, len(spans))
	for i := range spans {
		s := &spans[i]
		o := object{"traceId": hex.EncodeToString(s.Trace[:]), "spanId": hex.EncodeToString(s.ID[:]), "name": s.Name, "kind": 1,
			"startTimeUnixNano": strconv.FormatInt(s.Start.UnixNano(), 10), "endTimeUnixNano": strconv.FormatInt(s.End.UnixNano(), 10),
			"attributes": attributes(s.Attributes)}
		if s.Server {
			o["kind"] = 2
		}
		if s.Parent != [8]byte{} {
			o["parentSpanId"] = hex.EncodeToString(s.Parent[:])
		}
		if s.Error != "" {
			o["status"] = object{"code": 2, "message": s.Error}
		}
		list[i] = o
	}
	return object{"resourceSpans": array{object{
		"resource":   object{"attributes": attributes(x.cfg.Resource)},
		"scopeSpans": array{object{"scope": object{"name": "isobar"}, "spans": list}},
	}}}
}

func attributes(as []Attribute) array {
	out := array{}
	for _, a := range as {
		if a.Value != "" {
			out = append(out, object{"key": a.Key, "value": object{"stringValue": a.Value}})
		}
	}
	return out
}
