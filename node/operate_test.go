package node_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// withHTTP serves metrics on a free port.
func withHTTP() nodetest.Option {
	return nodetest.Set(func(c *node.Config) { c.HTTP = "127.0.0.1:0" })
}

func fetch(t *testing.T, n *nodetest.Node, path string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + n.Info().HTTP + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// awaitPath asks again until the answer has a status; each question waits for the actors,
// so that it is not asked in a tight loop.
func awaitPath(t *testing.T, n *nodetest.Node, path string, want int) string {
	t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		status, text := fetch(t, n, path)
		if status == want {
			return text
		}
		if time.Now().After(limit) {
			t.Fatalf("%s stays at %d: %s", path, status, text)
		}
	}
}

// value is a sample on a page; it must be there.
func value(t *testing.T, page, series string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("%s is not on the page:\n%s", series, page)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMetricsAreWhatTheNodeDid(t *testing.T) {
	const mib = 1 << 20
	n := nodetest.Start(t, nodetest.Devices("sim:gpu-0=256MiB"), withHTTP())
	c := n.Client(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	load := func(name string, bytes int64) {
		path := filepath.Join(n.ModelRoot, name+".safetensors")
		if err := weightstest.Sized(bytes, 1).WriteSafetensors(path); err != nil {
			t.Fatal(err)
		}
		if err := c.Call(ctx, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: path}, nil); err != nil {
			t.Fatal(err)
		}
	}
	load("unread", 100*mib)
	var first schemas.AllocateReply
	if err := c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 20 * mib}, &first); err != nil {
		t.Fatal(err)
	}
	// The second needs the model's room.
	if err := c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 180 * mib, Class: schemas.ClassState}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 1 << 40}, nil); err == nil {
		t.Fatal("a terabyte was granted")
	}
	if err := c.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: first.AllocationID}, nil); err != nil {
		t.Fatal(err)
	}
	awaitPath(t, n, "/readyz", 200)
	if status, text := fetch(t, n, "/livez"); status != 200 {
		t.Errorf("livez: %d %s", status, text)
	}
	status, page := fetch(t, n, "/metrics")
	if status != 200 {
		t.Fatal(status, page)
	}
	for series, want := range map[string]float64{
		`isobar_commands_total{action="allocate",code="OK"}`:                                         2,
		`isobar_commands_total{action="allocate",code="OUT_OF_MEMORY"}`:                              1,
		`isobar_commands_total{action="deallocate",code="OK"}`:                                       1,
		`isobar_command_duration_seconds_count{action="allocate"}`:                                   3,
		`isobar_grant_duration_seconds_count{device="gpu-0"}`:                                        2,
		`isobar_queue_wait_seconds_count{device="gpu-0"}`:                                            3, // the model's too
		`isobar_load_duration_seconds_count{device="gpu-0"}`:                                         1,
		`isobar_loaded_bytes_total{device="gpu-0"}`:                                                  100 * mib,
		`isobar_load_bytes_per_second_count{device="gpu-0"}`:                                         1,
		`isobar_grant_bytes{device="gpu-0",tenant="default",class="state"}`:                          180 * mib,
		`isobar_grants{device="gpu-0",tenant="default",class="state"}`:                               1,
		`isobar_refusals_total{device="gpu-0"}`:                                                      1,
		`isobar_device_limit_bytes{device="gpu-0",type="VRAM"}`:                                      256 * mib,
		`isobar_device_bytes{device="gpu-0",type="VRAM",state="granted"}`:                            180 * mib,
		`isobar_device_drift_bytes{device="gpu-0"}`:                                                  0,
		`isobar_queue_length{device="gpu-0"}`:                                                        0,
		`isobar_events_dropped_total`:                                                                0,
		`isobar_survey_complete`:                                                                     1,
		`isobar_build_info{version="0.0.0-test",go_version="` + runtime.Version() + `",node="test"}`: 1,
	} {
		if got := value(t, page, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	evicted := value(t, page, `isobar_evictions_total{device="gpu-0",reason="room"}`) + value(t, page, `isobar_evictions_total{device="gpu-0",reason="pressure"}`)
	if evicted != 1 {
		t.Errorf("%v models were evicted", evicted)
	}
	if v := value(t, page, `isobar_event_delay_seconds_count`); v < 5 {
		t.Errorf("%v events left", v)
	}
	if v := value(t, page, `isobar_process_anonymous_bytes`); v < mib {
		t.Errorf("%v bytes of our own", v)
	}
	var sum float64
	for _, m := range regexp.MustCompile(`(?m)^isobar_device_bytes\{device="gpu-0".* (\S+)$`).FindAllStringSubmatch(page, -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		sum += v
	}
	if sum != 256*mib {
		t.Errorf("the states add up to %v of %v", sum, 256*mib)
	}
}

// NATS goes away: the node says so in health, events and /readyz, and takes it back.
func TestWarningsComeAndGo(t *testing.T) {
	dir, err := os.MkdirTemp("", "isobar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := freePort(t)
	listen := func() *bus.Server {
		s, err := bus.StartServer(bus.ServerConfig{Listen: port, StoreDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	server := listen()
	n := nodetest.Start(t, withHTTP(), nodetest.Set(func(c *node.Config) { c.NATSURL = "nats://" + port }))
	awaitPath(t, n, "/readyz", 200)

	server.Close()
	if text := awaitPath(t, n, "/readyz", 503); !strings.Contains(text, "not ready: NATS is not connected\n") {
		t.Errorf("readyz: %q", text)
	}
	if status, text := fetch(t, n, "/livez"); status != 200 {
		t.Errorf("a node without NATS is alive: %d %s", status, text)
	}
	for {
		_, page := fetch(t, n, "/metrics")
		if strings.Contains(page, `isobar_warnings{code="nats_disconnected",severity="critical"}`) {
			break
		}
	}

	server = listen()
	defer server.Close()
	nc, err := nats.Connect("nats://" + port)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	events, err := nc.SubscribeSync(schemas.NodeSubject("test"))
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	awaitPath(t, n, "/readyz", 200)
	for {
		m, err := events.NextMsg(20 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(m.Data), `"event":"warning_cleared"`) && strings.Contains(string(m.Data), `"code":"nats_disconnected"`) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var st schemas.GetStatusReply
	if err := n.Client(t).Call(ctx, schemas.ActionGetStatus, nil, &st); err != nil {
		t.Fatal(err)
	}
	if st.Warnings == nil {
		t.Error("get_status has no warnings field")
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A port that is taken costs metrics, not memory.
func TestATakenPortIsAWarning(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := nodetest.Start(t, nodetest.Set(func(c *node.Config) { c.HTTP = l.Addr().String() }))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var st schemas.GetStatusReply
	if err := n.Client(t).Call(ctx, schemas.ActionGetStatus, nil, &st); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(st.Warnings, func(w schemas.HealthWarning) bool { return w.Code == schemas.WarnHTTPUnavailable })
	if i < 0 || !strings.Contains(st.Warnings[i].Text, "in use") || st.Warnings[i].Fix == "" || st.Warnings[i].Since.IsZero() {
		t.Errorf("warnings: %+v", st.Warnings)
	}
	if n.Info().HTTP != "" || len(n.Info().Warnings) == 0 {
		t.Errorf("info: %+v", n.Info())
	}
}

func TestHTTPMustBeLoopback(t *testing.T) {
	for _, c := range []struct {
		args map[string][]string
		fine bool
	}{
		{map[string][]string{"http": {"0.0.0.0:4280"}}, false},
		{map[string][]string{"http": {"0.0.0.0:4280"}, "http_remote": {"true"}}, true},
		{map[string][]string{"http": {"off"}}, true},
		{map[string][]string{"http": {"nonsense"}}, false},
	} {
		t.Run(fmt.Sprint(c.args), func(t *testing.T) {
			_, err := node.Load(node.Machine(), node.ScopeNode, node.Given{Flags: c.args})
			if (err == nil) != c.fine {
				t.Errorf("%v", err)
			}
		})
	}
}
