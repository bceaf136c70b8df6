package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// The exit codes.
const (
	exitDone    = 0
	exitRefused = 1
	exitUsage   = 2
	exitNoNode  = 3
)

// usageError is a command line that cannot be understood.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// fail prints what went wrong, in one paragraph, and gives the exit code. nil is none.
func (p *program) fail(err error) int {
	if err == nil {
		return exitDone
	}
	var child *childExit
	if errors.As(err, &child) {
		return child.code
	}
	text, code := explain(err)
	fmt.Fprintln(p.err, "isobar: "+text)
	return code
}

// explain puts an error into words for the person at the terminal.
func explain(err error) (text string, exit int) {
	var (
		wire    *schemas.Error
		config  *node.ConfigError
		misused *usageError
		connect *conn.ConnectError
		start   *bus.StartError
		unrun   *notRun
	)
	switch {
	case errors.As(err, &misused):
		return misused.text, exitUsage
	case errors.As(err, &config):
		if len(config.Problems) == 1 {
			return "configuration: " + config.Problems[0].String(), exitUsage
		}
		return "configuration:\n  " + strings.ReplaceAll(config.Error(), "\n", "\n  "), exitUsage
	case errors.As(err, &unrun):
		return unrun.text, unrun.code
	case errors.As(err, &wire):
		exit = exitRefused
		if wire.Code == schemas.CodeNoNode {
			exit = exitNoNode
		}
		return paragraph(wire), exit
	case errors.As(err, &connect) && !connect.NoServer():
		fix := strings.ToUpper(connect.Fix[:1]) + connect.Fix[1:]
		return fmt.Sprintf("the NATS server at %s: %v. %s.", connect.Target, connect.Err, fix), exitRefused
	case errors.As(err, &connect):
		return fmt.Sprintf("no NATS server at %s: %v. Start a node with `isobar run`, or name another server with --url.", connect.Target, connect.Err), exitNoNode
	case errors.As(err, &start):
		return err.Error(), exitRefused
	case errors.Is(err, context.DeadlineExceeded):
		return "the node did not answer in time. See with `isobar status` whether it runs.", exitNoNode
	}
	return err.Error(), exitRefused
}

// paragraph is an error of the contract: code, message, details, what to do.
func paragraph(e *schemas.Error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%d): %s", e.Code, e.Status, strings.TrimSuffix(e.Message, "."))
	if d := details(e.Details); d != "" {
		b.WriteString(". " + d)
	}
	if a := advice(e); a != "" {
		b.WriteString(". " + a)
	}
	if s := b.String(); !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "?") {
		b.WriteString(".")
	}
	return b.String()
}

// details lists what an error tells beside its message, sizes for reading.
func details(d map[string]any) string {
	var parts []string
	for name, v := range d {
		if items, ok := v.([]any); v == nil || ok && len(items) == 0 {
			continue
		}
		parts = append(parts, words(name)+" "+detail(name, v))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func words(name string) string {
	return strings.ReplaceAll(strings.TrimSuffix(name, "_bytes"), "_", " ")
}

// detail is one value; a list of owners with bytes is a list of "owner (size)".
func detail(name string, v any) string {
	if n, ok := wholeNumber(v); ok {
		if isSize(name) {
			return node.HumanSize(n)
		}
		return fmt.Sprint(n)
	}
	switch v := v.(type) {
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, detail(name, item))
		}
		return strings.Join(items, ", ")
	case map[string]any:
		if owner, ok := v["owner"].(string); ok {
			return owner + " (" + detail("bytes", v["bytes"]) + ")"
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(raw)
	}
	return fmt.Sprint(v)
}

func wholeNumber(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case float64:
		if n == float64(int64(n)) {
			return int64(n), true
		}
	}
	return 0, false
}

// advice is what to do about an error.
func advice(e *schemas.Error) string {
	switch e.Code {
	case schemas.CodeNoNode:
		return "Start one with `isobar run`, or name its server with --url and the node with --node"
	case schemas.CodeInvalidRequest:
		return "`isobar call ACTION --describe` lists the fields"
	case schemas.CodeUnknownAction:
		return "`isobar call --list` lists the actions"
	case schemas.CodeInvalidTransferParams:
		return "Give two different grants, and a range inside both"
	case schemas.CodeUnauthorized, schemas.CodeForbidden:
		return "Use credentials that may do this: --nats-credentials or --nats-nkey, or ISOBAR_NATS_USERNAME and ISOBAR_NATS_PASSWORD"
	case schemas.CodeInvalidDevice:
		return "`isobar call list_devices` lists the devices"
	case schemas.CodeAllocationNotFound:
		return "`isobar call get_allocations` lists the grants"
	case schemas.CodeModelNotFound:
		return "`isobar call get_model_info` lists the models; a new one needs a path"
	case schemas.CodeOperationNotFound, schemas.CodeTransferNotFound:
		return "It may be over and forgotten; `isobar call get_queue` lists what waits"
	case schemas.CodeModelInUse, schemas.CodeAllocationInUse:
		return "Wait until its readers let go, or add force=true"
	case schemas.CodeModelConflict:
		return "Unload the model of that name first, or choose another name"
	case schemas.CodeRequestIDReused:
		return "Use a new --request-id for a new command"
	case schemas.CodeNodeRequired:
		return "Name one with --node"
	case schemas.CodeStaleHandle:
		return "Ask for a fresh claim with `isobar call get_handle`"
	case schemas.CodePayloadTooLarge:
		return "Split the request"
	case schemas.CodeUnsupportedMediaType:
		return "Use JSON or MessagePack"
	case schemas.CodeInvalidModel:
		return "Check that the file is complete: safetensors (also sharded) and GGUF are read"
	case schemas.CodeFileNotReadable:
		return "The node must be able to read it, and it must lie in one of its model roots: `isobar run --model-root DIR`"
	case schemas.CodeQuotaExceeded:
		return "Release something, or have the quota raised"
	case schemas.CodeBusy:
		return "Try again in a moment"
	case schemas.CodeCancelled:
		return "Nothing was changed"
	case schemas.CodeInternalError:
		return "This is a defect: the node's log has more under the incident"
	case schemas.CodeTransferFailed:
		return "Try again; if it fails again, look at the device's health with `isobar status`"
	case schemas.CodeNotImplemented:
		return "Leave it out for now"
	case schemas.CodeOutOfMemory:
		if _, ok := e.Details["limit_bytes"]; ok {
			return "Ask for less, or raise the limit: `isobar call set_limits --describe`"
		}
		return "Release something, ask for less, or wait longer in the queue with timeout_seconds; `isobar status` shows who holds what"
	case schemas.CodeDeviceLost:
		return "`isobar status` shows the device; restarting the node tries it again"
	case schemas.CodeDraining:
		return "Try again when the next node is up"
	}
	return ""
}
