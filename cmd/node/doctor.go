package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/doctor"
	"github.com/isobar-project/isobar/node"
)

// doctorCommand looks whether the machine has what a node needs.
type doctorCommand struct {
	JSON bool `name:"json" help:"For programs: an array of checks with state, text and fix."`
	connection
}

// Help is the long help.
func (doctorCommand) Help() string {
	return `Looks at kernel, leases, huge pages, limits, control group, NUMA nodes, folders, sockets, JetStream, GPUs and clock, changes nothing, and names the command that mends what is wrong. Run it as the node's user, and inside its container. Exit code 1 if a node cannot do its work here.

    isobar doctor
    isobar doctor --json`
}

var errUnfit = errors.New("a node cannot do its work here: mend what is marked «fail»")

// Run implements the command.
func (d *doctorCommand) Run(k *call) error {
	settings := doctor.Finding{Check: "settings", State: doctor.OK, Text: "the configuration is sound; isobar config shows it"}
	cfg, err := node.Load(k.world, node.ScopeNode|node.ScopeVault|node.ScopeClient, node.Given{File: k.file})
	if err != nil {
		text, _ := explain(err)
		settings = doctor.Finding{Check: "settings", State: doctor.Fail, Text: text, Fix: "isobar config says where each value comes from"}
		if cfg, err = node.Defaults(k.world); err != nil {
			return err
		}
	}
	streams := func(ctx context.Context) (doctor.Streams, error) { return d.askStreams(ctx, k) }
	all := doctor.Examine(k.ctx, k.machine(cfg.RuntimeDir, cfg.StateDir, []string{cfg.DataSocket(), cfg.VaultSocket()}, streams))
	all = append([]doctor.Finding{settings}, all...)
	if d.JSON {
		text, err := json.Marshal(all)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(k.out, "%s\n", text); err != nil {
			return err
		}
	} else if err := writeFindings(k.out, all); err != nil {
		return err
	}
	if doctor.Worst(all) == doctor.Fail {
		return errUnfit
	}
	return nil
}

func writeFindings(w io.Writer, all []doctor.Finding) error {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "%-4s  %-11s  %s\n", f.State, f.Check, f.Text)
		if f.Fix != "" {
			fmt.Fprintf(&b, "                   fix: %s\n", f.Fix)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// askStreams asks the NATS server whether it keeps streams for this account.
func (d *doctorCommand) askStreams(ctx context.Context, k *call) (doctor.Streams, error) {
	var s doctor.Streams
	conn, err := d.open(k, func(o *client.Options) { s.URL = o.URL })
	if err != nil {
		if listens(ctx, s.URL) {
			return s, err
		}
		return s, nil
	}
	defer conn.Close()
	s.Answers = true
	m, err := conn.Conn().RequestWithContext(ctx, "$JS.API.INFO", nil)
	if err != nil {
		s.Why = err.Error()
		return s, nil
	}
	var info struct {
		Error *struct{ Description string }
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return s, err
	}
	if info.Error != nil {
		s.Why = info.Error.Description
		return s, nil
	}
	s.Enabled = true
	return s, nil
}

// listens reports whether somebody takes connections where a NATS server should be.
func listens(ctx context.Context, at string) bool {
	first, _, _ := strings.Cut(at, ",")
	u, err := url.Parse(first)
	if err != nil || u.Host == "" {
		return false
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(host, "4222")
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
