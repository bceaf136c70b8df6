package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// watchCommand follows events.
type watchCommand struct {
	What []string `arg:"" optional:"" name:"what" help:"Kinds (pressure, tenant_pressure, allocation, model, transfer, optimization, command, node, heartbeat) or NATS subjects; every event otherwise."`

	JSON  bool `name:"json" help:"Print each event as one JSON object with its subject."`
	Count int  `name:"count" placeholder:"COUNT" help:"End after so many events; 0 does not."`
	connection
}

// Help is the long help.
func (watchCommand) Help() string {
	return `Prints what happens from now on, one line each, until Ctrl-C. Where events were missed a line says which.

    isobar watch
    isobar watch pressure model
    isobar watch 'memory.events.pressure.*.gpu-0' --json
    isobar watch pressure --count 1`
}

// kinds are the words for subjects.
var kinds = []string{"pressure", "tenant_pressure", "allocation", "model", "transfer", "optimization", "command", "node", "heartbeat"}

// subjects turns words into subjects. A node that is named limits the kinds to its own.
func subjects(what []string, nodeName string) ([]string, error) {
	at := "*"
	if nodeName != "" {
		at = nodeName
	}
	var out []string
	for _, w := range what {
		switch {
		case strings.ContainsAny(w, ".*>"):
			if strings.ContainsAny(w, " \t") {
				return nil, usage("%q is not a NATS subject", w)
			}
			out = append(out, w)
		case w == "heartbeat":
			out = append(out, schemas.HeartbeatSubject(at))
		case w == "tenant_pressure":
			out = append(out, schemas.TenantPressureSubject("*", at, "*"))
		case w == "node":
			out = append(out, schemas.NodeSubject(at))
		case w == "command":
			out = append(out, schemas.CommandEventSubject(at))
		case w == "transfer":
			out = append(out, schemas.TransferSubject(at))
		case w == "pressure":
			out = append(out, schemas.PressureSubject(at, "*"))
		case w == "allocation":
			out = append(out, schemas.AllocationSubject(at, "*"))
		case w == "model":
			out = append(out, schemas.ModelSubject(at, "*"))
		case w == "optimization":
			out = append(out, schemas.OptimizationSubject(at, "*"))
		default:
			if best, ok := node.Nearest(w, kinds); ok {
				return nil, usage("%q is no kind of event: did you mean %s?", w, best)
			}
			return nil, usage("%q is no kind of event: choose from %s, or give a NATS subject", w, strings.Join(kinds, ", "))
		}
	}
	if len(what) == 0 && nodeName != "" {
		return subjects(kinds[:len(kinds)-1], nodeName)
	}
	return out, nil
}

// Run implements the command.
func (c *watchCommand) Run(k *call) error {
	on, err := subjects(c.What, c.Node)
	if err != nil {
		return err
	}
	// A lost connection is made anew; the person should know why nothing comes.
	conn, err := c.open(k, func(o *client.Options) { o.Log = slog.New(slog.NewTextHandler(k.err, nil)) })
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := k.interruptible()
	defer stop()
	events, err := conn.Events(ctx, on...)
	if err != nil {
		return err
	}
	defer events.Close()
	if k.errTerminal > 0 {
		what := strings.Join(on, " ")
		if what == "" {
			what = schemas.EventSubjects()
		}
		fmt.Fprintf(k.err, "isobar: following %s at %s; Ctrl-C ends\n", what, conn.Conn().ConnectedUrlRedacted())
	}
	for n := 0; c.Count == 0 || n < c.Count; n++ {
		e, err := events.Next(ctx)
		if errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		text := ""
		if c.JSON {
			text = eventJSON(e)
		} else {
			text = eventLines(e)
		}
		if _, err := fmt.Fprint(k.out, text); err != nil {
			return err
		}
	}
	return nil
}

// watched is an event as watch --json prints it. The claim-free data is as it came.
type watched struct {
	Subject string `json:"subject"`
	schemas.Event
}

func encodeWatched(w watched) string { return string(codec.Append(nil, codec.JSON, w)) + "\n" }
