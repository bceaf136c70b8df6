package dashboard_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/metrics"
	"github.com/isobar-project/isobar/schemas"
)

// series finds a metric with its matchers; on finds the labels that are grouped by.
var (
	series  = regexp.MustCompile(`\b(isobar_[a-z_]+)(\{[^}]*\})?`)
	matcher = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	grouped = regexp.MustCompile(`\b(?:by|on|without)\s*\(([^)]*)\)`)
)

// metric finds a name in the table; the series of a histogram have suffixes.
func metric(name string) (metrics.Desc, bool) {
	for _, d := range metrics.Table() {
		if d.Name == name && d.Kind != metrics.Histogram {
			return d, true
		}
		if d.Kind == metrics.Histogram && slices.Contains([]string{d.Name + "_bucket", d.Name + "_sum", d.Name + "_count"}, name) {
			d.Labels = append([]string{"le"}, d.Labels...)
			return d, true
		}
	}
	return metrics.Desc{}, false
}

// check says what is wrong with an expression: unknown metrics, labels and values.
func check(expr string) (wrong []string) {
	of := []string{"instance", "job"} // Prometheus adds them
	for _, m := range series.FindAllStringSubmatch(expr, -1) {
		d, ok := metric(m[1])
		if !ok {
			wrong = append(wrong, "there is no series "+m[1])
			continue
		}
		of = append(of, d.Labels...)
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(append([]string{"instance"}, d.Labels...), l[1]) {
				wrong = append(wrong, fmt.Sprintf("%s has no label %s", m[1], l[1]))
			}
			wrong = append(wrong, checkValue(d, l[1], l[2])...)
		}
	}
	for _, g := range grouped.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			if l = strings.TrimSpace(l); !slices.Contains(of, l) {
				wrong = append(wrong, "nothing has the label "+l)
			}
		}
	}
	return wrong
}

// checkValue holds values of labels to what they can be.
func checkValue(d metrics.Desc, label, value string) []string {
	var all []string
	switch d.Name + " " + label {
	case "isobar_warnings code":
		for _, w := range schemas.WarningSpecs() {
			all = append(all, string(w.Code))
		}
	case "isobar_warnings severity":
		all = schemas.SeverityNotice.Names()
	case "isobar_commands_total code":
		all = append(all, "OK")
		for _, c := range schemas.Codes() {
			all = append(all, string(c.Code))
		}
	case "isobar_device_bytes state":
		all = []string{"granted", "reserved", "revoking", "zombie", "foreign", "pooled", "free"}
	default:
		return nil
	}
	if !slices.Contains(all, value) {
		return []string{fmt.Sprintf("%s of %s is never %q", label, d.Name, value)}
	}
	return nil
}

func TestTheDashboardNamesWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("isobar.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct {
				Name  string
				Query json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	shown := map[string]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: its number is taken, or it is too wide", p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, wrong := range check(target.Expr) {
				t.Errorf("%s: %s", p.Title, wrong)
			}
			for _, m := range series.FindAllStringSubmatch(target.Expr, -1) {
				d, _ := metric(m[1])
				shown[d.Name] = true
			}
		}
	}
	for _, v := range board.Templating.List {
		for _, wrong := range check(strings.ReplaceAll(string(v.Query), `\"`, `"`)) {
			t.Errorf("variable %s: %s", v.Name, wrong)
		}
	}
	if len(shown) < 25 {
		t.Errorf("only %d metrics are shown", len(shown))
	}
}

var alertExpr = regexp.MustCompile(`(?m)^        expr: (".*")$`)

func TestTheAlertsNameWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	exprs := alertExpr.FindAllStringSubmatch(string(text), -1)
	if n := strings.Count(string(text), "- alert:"); n < 10 || len(exprs) != n || strings.Count(string(text), "          fix: ") != n {
		t.Errorf("%d alerts, %d expressions", n, len(exprs))
	}
	for _, m := range exprs {
		var expr string
		if err := json.Unmarshal([]byte(m[1]), &expr); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
		for _, wrong := range check(expr) {
			t.Errorf("%s: %s", expr, wrong)
		}
	}
	promtool, err := tool("promtool")
	if err != nil {
		t.Log("promtool is not here (make tools-deploy): the rules were not tried by Prometheus itself")
		return
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"check", "config", "prometheus.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// tool finds a program on the PATH, or where `make tools-deploy` puts it.
func tool(name string) (string, error) {
	if at, err := exec.LookPath(name); err == nil {
		return at, nil
	}
	at, err := filepath.Abs(filepath.Join("..", "..", ".tools", name))
	if err != nil {
		return "", err
	}
	return exec.LookPath(at)
}

// Every alert is tried: that it fires when it should, and that it keeps quiet when it should.
func TestEveryAlertIsTried(t *testing.T) {
	rules, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^      - alert: (\w+)$`).FindAllStringSubmatch(string(rules), -1) {
		for _, kind := range []string{"fires", "keeps quiet"} {
			if !strings.Contains(string(tests), "  - name: "+m[1]+" "+kind+"\n") {
				t.Errorf("alerts_test.yaml does not try that %s %s", m[1], kind)
			}
		}
	}
	for _, m := range regexp.MustCompile(`series: '([^']*)'`).FindAllStringSubmatch(string(tests), -1) {
		if strings.HasPrefix(m[1], "isobar_") {
			for _, wrong := range check(m[1]) {
				t.Errorf("%s: %s", m[1], wrong)
			}
		}
	}
}

// The check finds what it is there for.
func TestTheCheckFinds(t *testing.T) {
	for expr, want := range map[string]string{
		`isobar_nothing`: "no series",
		`rate(isobar_grant_duration_seconds[5m])`:                             "no series",
		`isobar_queue_length{tenant="a"}`:                                     "no label tenant",
		`sum by (colour) (isobar_queue_length)`:                               "label colour",
		`isobar_warnings{code="x"}`:                                           "never",
		`sum by (le, device) (rate(isobar_load_duration_seconds_bucket[5m]))`: "",
	} {
		if got := strings.Join(check(expr), "; "); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

func Example() {
	fmt.Println(check(`isobar_queue_length > 0`), check(`isobar_queue_size > 0`))
	// Output:
	// [] [there is no series isobar_queue_size]
}
