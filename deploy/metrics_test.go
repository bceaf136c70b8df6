package deploy_test

import (
	"context"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// What a node shows is what Prometheus reads: where there is a promtool, it judges the page
// of a node that has done something of each kind.
func TestMetricsAsPrometheusSeesThem(t *testing.T) {
	n := nodetest.Start(t, nodetest.Set(func(c *node.Config) { c.HTTP = "127.0.0.1:0" }))
	c := n.Client(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var g schemas.AllocateReply
	if err := c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 1 << 20}, &g); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(ctx, schemas.ActionClear, map[string]any{"allocation_id": g.AllocationID}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 1 << 40}, nil); err == nil {
		t.Fatal("a terabyte was granted")
	}
	web := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := web.Get("http://" + n.Info().HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	page, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(page), `isobar_refusals_total{device="gpu-0"} 1`) {
		t.Fatalf("%v:\n%s", err, page)
	}
	promtool, err := tool("promtool")
	if err != nil {
		t.Log("promtool is not here (make tools-deploy): the page was not read by Prometheus itself")
		return
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(string(page))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
