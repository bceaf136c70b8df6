package telemetry_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isobar-project/isobar/metrics"
	"github.com/isobar-project/isobar/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func nothing(context.Context) []string { return nil }

func start(t *testing.T, change func(*telemetry.Config)) string {
	t.Helper()
	c := telemetry.Config{Listen: "127.0.0.1:0", Silent: nothing, NotReady: nothing,
		Page: func(_ context.Context, b []byte) []byte { return append(b, "a_metric 1\n"...) }}
	if change != nil {
		change(&c)
	}
	s, err := telemetry.Serve(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr()
}

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	c := http.Client{Timeout: 20 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b), r.Header
}

func TestPaths(t *testing.T) {
	var silent, notReady []string
	url := start(t, func(c *telemetry.Config) {
		c.Silent = func(context.Context) []string { return silent }
		c.NotReady = func(context.Context) []string { return notReady }
	})
	status, text, header := get(t, url+"/metrics")
	if status != 200 || text != "a_metric 1\n" || header.Get("Content-Type") != metrics.ContentType {
		t.Errorf("%d %q %v", status, text, header)
	}
	for path, want := range map[string]string{"/livez": "alive\n", "/readyz": "ready\n", "/": "isobar: /metrics /livez /readyz\n"} {
		if status, text, _ := get(t, url+path); status != 200 || text != want {
			t.Errorf("%s: %d %q", path, status, text)
		}
	}
	silent, notReady = []string{"pool", "device/gpu-0"}, []string{"no vault holds the memory"}
	if status, text, _ := get(t, url+"/livez"); status != 503 || text != "does not answer: pool\ndoes not answer: device/gpu-0\n" {
		t.Errorf("livez: %d %q", status, text)
	}
	if status, text, _ := get(t, url+"/readyz"); status != 503 || text != "not ready: no vault holds the memory\n" {
		t.Errorf("readyz: %d %q", status, text)
	}
	if status, _, _ := get(t, url+"/debug/pprof/"); status != 404 {
		t.Errorf("another path: %d", status)
	}
	r, err := http.Post(url+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST: %d", r.StatusCode)
	}
}

func TestOnlyLoopbackUnlessAllowed(t *testing.T) {
	for _, a := range []string{"0.0.0.0:0", ":0", "192.0.2.1:1", "example.org:1"} {
		if s, err := telemetry.Serve(telemetry.Config{Listen: a}); err == nil || !strings.Contains(err.Error(), "http_remote") {
			t.Errorf("%s: %v", a, err)
			if s != nil {
				s.Close()
			}
		}
	}
	for _, a := range []string{"127.0.0.1:0", "127.9.9.9:1", "[::1]:1", "localhost:1"} {
		if !telemetry.Loopback(a) {
			t.Errorf("%s is loopback", a)
		}
	}
	if url := start(t, func(c *telemetry.Config) { c.Listen, c.AllowRemote = "0.0.0.0:0", true }); url == "" {
		t.Error("not allowed")
	}
}

func TestATakenPortIsAnError(t *testing.T) {
	url := start(t, nil)
	if _, err := telemetry.Serve(telemetry.Config{Listen: strings.TrimPrefix(url, "http://")}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
}

// Questions to the node do not pile up: one of a path at a time.
func TestOneOfAPathAtATime(t *testing.T) {
	running := make(chan int, 8)
	count := 0
	release := make(chan struct{})
	url := start(t, func(c *telemetry.Config) {
		c.Silent = func(context.Context) []string {
			count++ // a race, if two were here at once
			running <- count
			<-release
			return nil
		}
	})
	results := make(chan error, 3)
	for range 3 {
		go func() {
			r, err := http.Get(url + "/livez")
			if err == nil {
				r.Body.Close()
			}
			results <- err
		}()
	}
	<-running
	close(release)
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func ExampleServe() {
	s, err := telemetry.Serve(telemetry.Config{Listen: "127.0.0.1:0", Silent: nothing,
		NotReady: func(context.Context) []string { return []string{"ram-0 has not been sampled yet"} },
		Page:     func(_ context.Context, b []byte) []byte { return b }})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	defer http.DefaultClient.CloseIdleConnections()
	r, err := http.Get("http://" + s.Addr() + "/readyz")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	fmt.Print(r.StatusCode, " ", string(text))
	// Output:
	// 503 not ready: ram-0 has not been sampled yet
}
