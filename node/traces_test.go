package node_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// span is one span as a collector reads it.
type span struct {
	TraceID, SpanID, ParentSpanID, Name string
	Kind                                int
	Attributes                          []struct {
		Key   string
		Value struct{ StringValue string }
	}
	Status struct{ Message string }
}

func (s *span) attribute(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.StringValue
		}
	}
	return ""
}

// Commands that name a trace are spans of it, with what took long inside; those of a trace
// that is not sampled are none.
func TestSpansArriveWithTheCallersTrace(t *testing.T) {
	spans := make(chan span, 256)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			ResourceSpans []struct{ ScopeSpans []struct{ Spans []span } }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		for _, s := range body.ResourceSpans[0].ScopeSpans[0].Spans {
			spans <- s
		}
	}))
	defer collector.Close()
	n := nodetest.Start(t, nodetest.Devices("sim:gpu-0=256MiB"), nodetest.Set(func(c *node.Config) { c.OTLPEndpoint = collector.URL }))
	nc, err := nats.Connect(n.Info().URL)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	path := filepath.Join(n.ModelRoot, "m.safetensors")
	if err := weightstest.Sized(8<<20, 1).WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	ask := func(action schemas.Action, flags string, data any) {
		payload, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		m := &nats.Msg{Subject: schemas.CommandSubject(action), Data: payload, Header: nats.Header{"traceparent": []string{"00-" + trace + "-" + parent + "-" + flags}}}
		if _, err := nc.RequestMsg(m, 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	ask(schemas.ActionGetStatus, "00", map[string]any{})
	ask(schemas.ActionAllocate, "01", map[string]any{"device_id": "gpu-0", "size_bytes": 1 << 40})
	ask(schemas.ActionLoadModel, "01", map[string]any{"name": "m", "path": path, "wait_ms": 20000})

	got := map[string]span{}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for len(got) < 3 {
		select {
		case s := <-spans:
			got[s.Name] = s
		case <-ctx.Done():
			t.Fatalf("only %v arrived", got)
		}
	}
	allocate, load, inner := got["memory.allocate"], got["memory.load_model"], got["load"]
	for _, s := range got {
		if s.TraceID != trace || s.SpanID == "" {
			t.Errorf("another trace: %+v", s)
		}
	}
	if allocate.ParentSpanID != parent || allocate.Kind != 2 || allocate.Status.Message != "OUT_OF_MEMORY" || allocate.attribute("isobar.device") != "gpu-0" ||
		allocate.attribute("isobar.code") != "OUT_OF_MEMORY" {
		t.Errorf("allocate: %+v", allocate)
	}
	if load.ParentSpanID != parent || load.attribute("isobar.code") != "OK" || inner.ParentSpanID != load.SpanID || inner.attribute("isobar.model") != "m" {
		t.Errorf("load_model: %+v, inside %+v", load, inner)
	}
}
