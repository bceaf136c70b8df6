package tracing_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var then = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// collector is an OTLP receiver that hands on the bodies that it got.
func collector(t *testing.T, status int) (string, <-chan map[string]any) {
	t.Helper()
	got := make(chan map[string]any, 64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %v", r.URL, r.Header, err)
		}
		w.WriteHeader(status)
		got <- body
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

func TestSpansArriveInBatches(t *testing.T) {
	url, got := collector(t, 200)
	c := clock.NewManual(1, then)
	x, err := tracing.New(tracing.Config{Endpoint: url, Clock: c, Resource: []tracing.Attribute{{"service.name", "isobar"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	trace, parent, sampled, ok := tracing.Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if !ok || !sampled {
		t.Fatal("the header of the specification is none")
	}
	x.Add(tracing.Span{Trace: trace, Parent: parent, ID: tracing.NewSpan(), Name: "memory.allocate", Server: true, Start: then, End: then.Add(time.Millisecond),
		Error: "OUT_OF_MEMORY", Attributes: []tracing.Attribute{{"isobar.device", "gpu-0"}, {"empty", ""}}})
	x.Add(tracing.Span{Trace: tracing.NewTrace(), ID: tracing.NewSpan(), Name: "a root", Start: then, End: then})
	c.Advance(time.Second)
	text, _ := json.Marshal(<-got)
	want := `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"isobar"}}]},"scopeSpans":[{"scope":{"name":"isobar"},"spans":[`
	if s := string(text); len(s) < len(want) || s[:len(want)] != want {
		t.Errorf("%s", text)
	}
	var body struct {
		ResourceSpans []struct {
			ScopeSpans []struct{ Spans []map[string]any }
		}
	}
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatal(err)
	}
	spans := body.ResourceSpans[0].ScopeSpans[0].Spans
	s := spans[0]
	if len(spans) != 2 || s["traceId"] != "0af7651916cd43dd8448eb211c80319c" || s["parentSpanId"] != "b7ad6b7169203331" || s["kind"] != 2.0 ||
		s["startTimeUnixNano"] != fmt.Sprint(then.UnixNano()) || s["endTimeUnixNano"] != fmt.Sprint(then.UnixNano()+1e6) ||
		fmt.Sprint(s["status"]) != "map[code:2 message:OUT_OF_MEMORY]" || fmt.Sprint(s["attributes"]) != "[map[key:isobar.device value:map[stringValue:gpu-0]]]" {
		t.Errorf("%v", spans)
	}
	if _, has := spans[1]["parentSpanId"]; has {
		t.Errorf("a root has a parent: %v", spans[1])
	}
	x.Close()
	if exported, dropped := x.Stats(); exported != 2 || dropped != 0 {
		t.Errorf("%d exported, %d dropped", exported, dropped)
	}
}

// What the collector does not take is lost and counted; nobody waits for it.
func TestNothingWaitsForTheCollector(t *testing.T) {
	url, got := collector(t, 503)
	c := clock.NewManual(1, then)
	x, err := tracing.New(tracing.Config{Endpoint: url, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	x.Add(tracing.Span{})
	c.Advance(time.Second)
	<-got
	x.Close()
	if exported, dropped := x.Stats(); exported != 0 || dropped != 1 {
		t.Errorf("%d exported, %d dropped", exported, dropped)
	}
	for range tracing.Queue + 3 { // nobody takes from a closed one
		x.Add(tracing.Span{})
	}
	if _, dropped := x.Stats(); dropped != 4 {
		t.Errorf("%d dropped", dropped)
	}
}

func TestParse(t *testing.T) {
	for header, want := range map[string]bool{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":       true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00":       true,
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later": true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later": false,
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":       false,
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":       false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01":       false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01":       false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333x-01":       false,
		"00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01":       false,
		"": false, "00": false,
	} {
		if _, _, _, ok := tracing.Parse(header); ok != want {
			t.Errorf("%q: %v", header, ok)
		}
	}
	for _, e := range []string{"", "127.0.0.1:4318", "ftp://x", "http://"} {
		if _, err := tracing.New(tracing.Config{Endpoint: e}); err == nil {
			t.Errorf("%q is an endpoint", e)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Fuzz(func(t *testing.T, s string) {
		if trace, parent, _, ok := tracing.Parse(s); ok && (trace == [16]byte{} || parent == [8]byte{} || fmt.Sprintf("%x", trace) != s[3:35]) {
			t.Errorf("%q: %x %x", s, trace, parent)
		}
	})
}

func ExampleParse() {
	trace, parent, sampled, ok := tracing.Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	fmt.Printf("%x %x %v %v\n", trace, parent, sampled, ok)
	// Output:
	// 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 true true
}
