package embedded

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/isobar-project/isobar/node"
)

// Spec is a node to run.
type Spec struct {
	// Dir is a private folder, short enough for a unix socket's path, that holds
	// everything of the node.
	Dir string `json:"dir"`
	// Settings are node settings by key, as text, beyond those that follow from Dir.
	Settings map[string][]string `json:"settings"`
	// Tenants are subject prefixes by tenant; nil is the default tenant alone.
	Tenants map[string]string `json:"tenants,omitempty"`
}

// Ready is what a node says once it serves.
type Ready struct {
	PID         int     `json:"pid"`
	Node        string  `json:"node"`
	BootID      string  `json:"boot_id"`
	URL         string  `json:"url"`
	DataSocket  string  `json:"data_socket"`
	VaultSocket string  `json:"vault_socket"`
	LoadWorkers int     `json:"load_workers"`
	StartMs     float64 `json:"start_ms"`
	Restored    int     `json:"restored_grants"`
}

// config is the node's configuration: defaults of this machine, and the Spec. The user's
// own environment and file have no say, so that figures of two runs compare.
func config(s Spec, program []string) (node.Config, error) {
	w := node.Machine()
	w.Environ = slices.DeleteFunc(w.Environ, func(e string) bool { return strings.HasPrefix(e, "ISOBAR_") })
	w.ReadFile = func(path string) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	flags := map[string][]string{
		"node":        {"bench"},
		"listen":      {"127.0.0.1:0"},
		"state_dir":   {filepath.Join(s.Dir, "state")},
		"runtime_dir": {filepath.Join(s.Dir, "run")},
		"ephemeral":   {"true"},
	}
	for k, v := range s.Settings {
		flags[k] = v
	}
	cfg, err := node.Load(w, node.ScopeNode|node.ScopeVault, node.Given{Flags: flags})
	if err != nil {
		return cfg, err
	}
	cfg.Version = "0.0.0-bus-test"
	cfg.VaultCommand = append(slices.Clone(program), "vault", cfg.VaultSocket())
	return cfg, nil
}

// Serve is the life of the child: the node of spec, until in ends. program calls this
// program again. Lines of in are orders: "profile FILE" begins a CPU profile, "stop" ends it.
func Serve(ctx context.Context, spec Spec, program []string, in io.Reader, out io.Writer) error {
	cfg, err := config(spec, program)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(spec.Dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cfg.Log = cfg.Logger(log)
	node.Tune(&cfg)
	n, err := node.Open(ctx, cfg, node.Hooks{Tenants: spec.Tenants})
	if err != nil {
		return err
	}
	i := n.Info()
	err = json.NewEncoder(out).Encode(Ready{PID: os.Getpid(), Node: i.Node, BootID: i.BootID, URL: i.URL, DataSocket: i.DataSocket, VaultSocket: i.VaultSocket,
		LoadWorkers: cfg.LoadWorkers, StartMs: i.StartMs, Restored: i.Restored.Grants})
	if err != nil {
		return err
	}
	if err := orders(in, out); err != nil {
		fmt.Fprintln(os.Stderr, "bus-test node:", err)
	}
	stop, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = n.Stop(stop)
	return err
}

// orders carries out what the parent says until it says no more.
func orders(in io.Reader, out io.Writer) error {
	var profile *os.File
	defer func() {
		if profile != nil {
			pprof.StopCPUProfile()
			_ = profile.Close()
		}
	}()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		switch {
		case verb == "profile" && profile == nil:
			f, err := os.Create(arg)
			if err != nil {
				return err
			}
			if err := pprof.StartCPUProfile(f); err != nil {
				return err
			}
			profile = f
		case verb == "stop" && profile != nil:
			pprof.StopCPUProfile()
			err := profile.Close()
			profile = nil
			if err != nil {
				return err
			}
		default:
			return fmt.Errorf("the order %q is not known", lines.Text())
		}
		if _, err := fmt.Fprintln(out, "done"); err != nil {
			return err
		}
	}
	return lines.Err()
}
