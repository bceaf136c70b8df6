package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v4"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// setting is the last value of a unit's key.
func setting(unit, key string) string {
	value := ""
	for line := range strings.Lines(unit) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			value = v
		}
	}
	return value
}

func TestUnits(t *testing.T) {
	node, vault := read(t, "systemd", "isobar.service"), read(t, "systemd", "isobar-vault.service")
	for name, u := range map[string]string{"node": node, "vault": vault} {
		for key, want := range map[string]string{"NoNewPrivileges": "yes", "ProtectSystem": "strict", "RestrictNamespaces": "yes", "Restart": "always",
			"RuntimeDirectory": "isobar", "RuntimeDirectoryPreserve": "yes", "User": "isobar", "SystemCallFilter": "@system-service"} {
			if got := setting(u, key); got != want {
				t.Errorf("%s: %s=%s, not %s", name, key, got, want)
			}
		}
		if !strings.Contains(setting(u, "ExecStart"), "--runtime-dir /run/isobar") {
			t.Errorf("%s: %s", name, setting(u, "ExecStart"))
		}
	}
	// The vault must not end with the node.
	for _, key := range []string{"BindsTo", "PartOf", "Requires", "StopPropagatedFrom"} {
		if v := setting(vault, key) + setting(node, key); v != "" {
			t.Errorf("%s=%s ties the two together", key, v)
		}
	}
	if n, v := number(t, setting(node, "OOMScoreAdjust")), number(t, setting(vault, "OOMScoreAdjust")); v >= n {
		t.Errorf("the vault would be killed before the node: %d, %d", v, n)
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Where systemd is to be had it judges the units itself.
func TestUnitsAsSystemdSeesThem(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not here: the units are checked by their text alone")
		return
	}
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{"isobar.service", "isobar-vault.service"} {
		path := filepath.Join(dir, name)
		text := strings.ReplaceAll(read(t, "systemd", name), "/usr/bin/isobar", "/bin/true") // what is not installed is no fault of the unit
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	if out, err := exec.Command(tool, append([]string{"verify", "--man=no"}, paths...)...).CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
		t.Errorf("%v\n%s", err, out)
	}
	for i, worst := range []string{"35", "20"} { // tenths of systemd's exposure level
		out, err := exec.Command(tool, "security", "--offline=yes", "--threshold="+worst, paths[i]).CombinedOutput()
		if err != nil {
			t.Errorf("%s is more exposed than %s: %v\n%s", paths[i], worst, err, out)
		}
	}
}

func TestContainerFile(t *testing.T) {
	f := read(t, "container", "Containerfile")
	user := regexp.MustCompile(`(?m)^USER (\d+):\d+$`).FindStringSubmatch(f)
	if user == nil || user[1] == "0" || !strings.Contains(f, "CGO_ENABLED=0") || !strings.Contains(f, "\nFROM scratch\n") {
		t.Error("the image is to be a static binary that runs as somebody else than root")
	}
	if !strings.Contains(f, "golang:"+goVersion(t)+" ") {
		t.Errorf("built with another Go than go.mod's %s", goVersion(t))
	}
}

func goVersion(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "..", "go.mod"))
	if m == nil {
		t.Fatal("no version in go.mod")
	}
	return m[1]
}

type object = map[string]any

// render makes the chart's object as helm would, for the little of its language that the
// chart uses.
func render(t *testing.T, change object) object {
	t.Helper()
	values := object{}
	if err := yaml.Unmarshal([]byte(read(t, "helm", "isobar", "values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	for k, v := range change {
		if _, known := values[k]; !known {
			t.Fatalf("the chart has no value %s", k)
		}
		values[k] = v
	}
	asJSON := func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err }
	tmpl, err := template.New("daemonset").Funcs(template.FuncMap{"quote": strconv.Quote, "toJson": asJSON}).Option("missingkey=error").
		Parse(read(t, "helm", "isobar", "templates", "daemonset.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := tmpl.Execute(&text, object{"Values": values, "Release": object{"Name": "memory"}}); err != nil {
		t.Fatal(err)
	}
	var out object
	if err := yaml.Unmarshal([]byte(text.String()), &out); err != nil {
		t.Fatalf("%v in\n%s", err, text.String())
	}
	return out
}

func dig(v any, path ...any) any {
	for _, p := range path {
		switch k := p.(type) {
		case string:
			m, _ := v.(object)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

func TestChart(t *testing.T) {
	for name, change := range map[string]object{
		"as it comes": {},
		"with all": {"natsUrl": "nats://nats:4222", "natsCredentialsSecret": "creds", "modelDir": "/srv/models", "devices": []string{"ram:ram-0=20GiB"},
			"allowUids": []int{1000}, "nodeSelector": object{"gpu": "yes"}, "tolerations": []object{{"operator": "Exists"}}},
	} {
		d := render(t, change)
		spec := dig(d, "spec", "template", "spec")
		if d["kind"] != "DaemonSet" || dig(spec, "securityContext", "runAsNonRoot") != true || dig(spec, "hostPID") != true {
			t.Errorf("%s: %v", name, d)
		}
		vault, node := dig(spec, "initContainers", 0), dig(spec, "containers", 0)
		if dig(vault, "restartPolicy") != "Always" || dig(vault, "args", 0) != "vault" || dig(node, "args", 0) != "run" {
			t.Errorf("%s: the vault is no sidecar of the node", name)
		}
		volumes := map[string]bool{}
		list, _ := dig(spec, "volumes").([]any)
		for _, v := range list {
			volumes[dig(v, "name").(string)] = true
		}
		for _, c := range []any{vault, node} {
			if dig(c, "volumeMounts", 0, "mountPath") != "/run/isobar" || dig(c, "securityContext", "readOnlyRootFilesystem") != true {
				t.Errorf("%s: %v", name, c)
			}
			mounts, _ := dig(c, "volumeMounts").([]any)
			for _, m := range mounts {
				if !volumes[dig(m, "name").(string)] {
					t.Errorf("%s: no volume %v", name, dig(m, "name"))
				}
			}
		}
		args, _ := dig(node, "args").([]any)
		if len(change) > 0 {
			for _, want := range []any{"--nats-url=nats://nats:4222", "--nats-credentials=/etc/isobar/isobar.creds", "--model-root=/models", "--device=ram:ram-0=20GiB", "--allow-uid=1000"} {
				if !slices.Contains(args, want) {
					t.Errorf("%v is not in %v", want, args)
				}
			}
		}
	}
}

// Where helm is to be had it judges the chart itself, as it comes and with all that can be
// set.
func TestChartAsHelmSeesIt(t *testing.T) {
	helm, err := tool("helm")
	if err != nil {
		t.Log("helm is not here (make tools-deploy): the chart is rendered by this test alone")
		return
	}
	all := []string{"--set", "natsUrl=nats://nats:4222,natsCredentialsSecret=creds,modelDir=/srv/models,devices={ram:ram-0=20GiB},allowUids={1000}", "--set", "nodeSelector.gpu=yes"}
	for _, args := range [][]string{{"lint", "--strict", "helm/isobar"}, append([]string{"lint", "--strict", "helm/isobar"}, all...),
		{"template", "memory", "helm/isobar"}, append([]string{"template", "memory", "helm/isobar"}, all...)} {
		out, err := exec.Command(helm, args...).CombinedOutput()
		if err != nil {
			t.Errorf("helm %v: %v\n%s", args, err, out)
		}
		if args[0] != "template" {
			continue
		}
		var made object
		if err := yaml.Unmarshal(out, &made); err != nil || made["kind"] != "DaemonSet" {
			t.Errorf("helm %v makes %v: %v", args, made["kind"], err)
		}
	}
}

// tool finds a program on the PATH, or where `make tools-deploy` puts it.
func tool(name string) (string, error) {
	if at, err := exec.LookPath(name); err == nil {
		return at, nil
	}
	at, err := filepath.Abs(filepath.Join("..", ".tools", name))
	if err != nil {
		return "", err
	}
	return exec.LookPath(at)
}
