package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
)

// runCommand is the node.
type runCommand struct {
	kong.Plugins
}

// Help is the long help.
func (runCommand) Help() string {
	return `Starts an embedded NATS server (or uses the one of --nats-url), the data socket and, if none runs, the vault; then serves until SIGINT, SIGTERM or SIGHUP, which release what has no living owner and keep the rest for the next node. A second signal ends it at once; nothing is lost by that.

    isobar run
    isobar run --device ram:ram-0=20GiB --model-root ~/models
    isobar run --device sim:gpu-0=24GiB,bandwidth=25GB --listen 127.0.0.1:0 --ephemeral

Every flag is also a variable and a name in the configuration file: "isobar config" lists them.`
}

// Run implements the command.
func (r *runCommand) Run(k *call) error {
	g, err := given(r.Plugins, k.file)
	if err != nil {
		return err
	}
	cfg, err := node.Load(k.world, node.ScopeNode|node.ScopeVault|node.ScopeClient, g)
	if err != nil {
		return err
	}
	exe, err := k.executable()
	if err != nil {
		return fmt.Errorf("the path of this program, with which the vault is started: %w", err)
	}
	if err := k.becomeCUDA(&cfg, exe); err != nil {
		return err
	}
	exe = k.static(exe)
	cfg.Version = k.version
	cfg.Log = cfg.Logger(k.err)
	cfg.VaultCommand = append([]string{exe}, cfg.VaultArgs()...)
	ctx, stop := k.untilSignal("stopping: what has no living owner is released; once more to end at once")
	defer stop()
	return k.node(ctx, cfg, func(i node.Info) { k.ready(&cfg, i) })
}

// untilSignal is a context that ends with the first signal; the second ends the process.
func (k *call) untilSignal(message string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(k.ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-k.interrupts:
		case <-done:
			return
		}
		if message != "" {
			fmt.Fprintln(k.err, "isobar: "+message)
		}
		cancel(errInterrupted)
		select {
		case <-k.interrupts:
			k.exit(exitRefused)
		case <-done:
		}
	}()
	return ctx, func() { close(done); cancel(nil) }
}

// ready says what was started, and what to try.
func (k *call) ready(cfg *node.Config, i node.Info) {
	var b strings.Builder
	fmt.Fprintf(&b, "isobar %s: node %s is ready\n\n", k.version, i.Node)
	fmt.Fprintf(&b, "  commands     %s\n  data socket  %s\n", i.URL, i.DataSocket)
	if i.HTTP != "" {
		fmt.Fprintf(&b, "  metrics      http://%s/metrics\n", i.HTTP)
	}
	t := table{}
	for n, d := range i.Devices {
		label := ""
		if n == 0 {
			label = "devices"
		}
		size := "-"
		if bytes, ok := i.Bytes[d.DeviceID]; ok {
			size = node.HumanSize(bytes)
		}
		note := ""
		if d.Simulated {
			note = "simulated"
		}
		if d.Health == schemas.HealthLost {
			note = "lost"
		}
		t.row(label, d.DeviceID, string(d.Type), size, d.Name, note)
	}
	t.indent, t.minimum = "  ", len("data socket")
	t.write(&b)
	if r := i.Restored; r.Grants+r.Models+r.Sessions+len(r.LostGrants)+len(r.LostModels) > 0 {
		fmt.Fprintf(&b, "  taken over   %s\n", restored(r))
	}
	for _, w := range i.Warnings {
		if w.Severity == schemas.SeverityNotice {
			continue // isobar status has them
		}
		fmt.Fprintf(&b, "  warning      %s: %s\n", w.Text, w.Fix)
	}
	b.WriteString("\nTry next, in another terminal:\n\n")
	for _, command := range k.suggestions(cfg, i) {
		b.WriteString("  " + command + "\n")
	}
	b.WriteString("\n")
	fmt.Fprint(k.out, b.String())
}

func restored(r schemas.Restored) string {
	s := fmt.Sprintf("%s (%s), %s, %s", plural(r.Grants, "grant"), node.HumanSize(r.GrantedBytes), plural(r.Models, "model"), plural(r.Sessions, "session"))
	if lost := len(r.LostGrants) + len(r.LostModels); lost > 0 {
		s += fmt.Sprintf("; lost %s: %s", plural(lost, "object"), strings.Join(slices.Concat(r.LostGrants, r.LostModels), ", "))
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// suggestions are commands that work as they stand.
func (k *call) suggestions(cfg *node.Config, i node.Info) []string {
	program, url := quote(k.name), ""
	// What a client finds by itself, it need not be told.
	if client, err := node.Load(k.world, node.ScopeClient, node.Given{}); err != nil || client.ClientURL() != i.URL {
		url = " --url " + quote(i.URL)
	}
	var s []string
	if cfg.NATSPassword != "" {
		s = append(s, "export ISOBAR_NATS_USERNAME="+quote(cfg.NATSUsername)+" ISOBAR_NATS_PASSWORD=…")
	}
	s = append(s, program+" status"+url)
	if len(cfg.Devices) > 0 {
		d := cfg.Devices[0]
		s = append(s, fmt.Sprintf("%s call allocate device_id=%s size_bytes=%s purpose=trial lease_seconds=60%s",
			program, d.ID, node.ExactSize(min(64<<20, max(2<<20, d.Bytes/16>>21<<21))), url))
	}
	if path, ok := k.findModel(cfg.ModelRoots); ok {
		name := node.Token(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
		s = append(s, fmt.Sprintf("%s call load_model name=%s path=%s%s", program, name, quote(path), url))
	}
	return append(s, program+" watch"+url, program+" call --list")
}

// quote writes a word so that a shell takes it as one.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,=@%+") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// findModel looks for a model file in the roots, two folders deep and no further than
// a few hundred entries: it is for a suggestion only.
func findModel(roots []string) (found string, ok bool) {
	const most = 500
	seen := 0
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error { // what cannot be read suggests nothing
			seen++
			if seen > most || found != "" {
				return fs.SkipAll
			}
			if err != nil {
				return fs.SkipDir
			}
			if e.IsDir() {
				if strings.Count(strings.TrimPrefix(path, root), string(os.PathSeparator)) > 2 {
					return fs.SkipDir
				}
				return nil
			}
			if ext := filepath.Ext(path); ext == ".gguf" || ext == ".safetensors" && !strings.Contains(path, "-of-") {
				found = path
			}
			return nil
		})
	}
	return found, found != ""
}

// vaultCommand is the vault.
type vaultCommand struct {
	kong.Plugins
}

// Help is the long help.
func (vaultCommand) Help() string {
	return `The vault holds the descriptors of all memory, so that it outlives a node that dies or is upgraded. It ends by itself when it is empty and its node has gone, or when no node has returned for --vault-timeout and nobody uses the memory. Run it as a unit of its own where the service manager would end it together with the node.`
}

// Run implements the command.
func (v *vaultCommand) Run(k *call) error {
	g, err := given(v.Plugins, k.file)
	if err != nil {
		return err
	}
	cfg, err := node.Load(k.world, node.ScopeVault, g)
	if err != nil {
		return err
	}
	ctx, stop := k.untilSignal("")
	defer stop()
	debug.FreeOSMemory() // what reading the command line took is not needed again
	return k.vault(ctx, vault.RunConfig{Config: vault.Config{SocketPath: cfg.VaultSocket(), NodeTimeout: cfg.VaultTimeout, Log: cfg.Logger(k.err)}})
}
