package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/schemas"
)

func TestCallPrintsTheReply(t *testing.T) {
	b := startNode(t, replies(house()))
	for _, args := range [][]string{
		{"call", "allocate", "size_bytes=64MiB", "--url", b.URL()},
		{"call", "--url", b.URL(), "allocate", "size_bytes=64MiB"},
		{"call", "allocate", "--url=" + b.URL(), "size_bytes=64MiB", "--msgpack"},
		{"call", "allocate", "--json", `{"size_bytes":67108864}`, "--url", b.URL(), "--node", "here"},
	} {
		f := newFixture()
		if code := f.run(t, args...); code != exitDone {
			t.Fatalf("%q: exit code %d: %s", args, code, f.err)
		}
		golden(t, "call_allocate.json", f.out.String())
	}
}

func TestCallOnATerminalIndents(t *testing.T) {
	b := startNode(t, replies(house()))
	f := newFixture()
	f.outTerminal = 80
	f.run(t, "call", "get_queue", "--url", b.URL())
	golden(t, "call_queue_terminal.json", f.out.String())
}

func TestCallAsTable(t *testing.T) {
	b := startNode(t, replies(house()))
	for _, action := range []string{"allocate", "get_pressure", "get_model_info"} {
		f := newFixture()
		args := []string{"call", action, "--table", "--url", b.URL()}
		if action == "allocate" {
			args = append(args, "size_bytes=64MiB")
		}
		if code := f.run(t, args...); code != exitDone {
			t.Fatalf("exit code %d: %s", code, f.err)
		}
		golden(t, "call_"+action+"_table.txt", f.out.String())
	}
}

// A list that is empty is an answer, too.
func TestCallAsTableOfNothing(t *testing.T) {
	for reply, want := range map[string]string{
		`{"waiting":[]}`:                         "waiting  none\n",
		`{"models":[],"next_cursor":null}`:       "models  none\n",
		`{"success":true,"waiting":[]}`:          "success  yes\n",
		`{"waiting":[{"position":1}],"more":[]}`: "WAITING\nposition\n1\n",
	} {
		var got strings.Builder
		if err := writeReplyTable(&got, []byte(reply), 80); err != nil || got.String() != want {
			t.Errorf("%s: %q, %v", reply, got.String(), err)
		}
	}
}

// The command that arrives is the one that was written.
func TestCallSendsWhatWasAsked(t *testing.T) {
	got := make(chan *actors.Command, 1)
	b := startNode(t, desk(func(c *actors.Command) {
		got <- c
		c.Reply.Done(granted(), nil)
	}))
	f := newFixture()
	f.in = strings.NewReader(`{"purpose":"from stdin"}`)
	f.run(t, "call", "allocate", "size_bytes=1GiB", "lease_seconds=2m", "--json", "-", "--wait", "7s", "--dry-run", "--request-id", "again", "--url", b.URL())
	c := wait(t, got)
	r := c.Data.(*schemas.AllocateRequest)
	if r.SizeBytes != 1<<30 || *r.LeaseSeconds != 120 || r.Purpose != "from stdin" || c.Wait != 7*time.Second || !c.DryRun || c.RequestID != "again" || !c.Chosen {
		t.Errorf("got %+v with %+v", c, r)
	}
}

func TestCallExitCodes(t *testing.T) {
	full := schemas.Errorf(schemas.CodeOutOfMemory, "no room on gpu-0 before the deadline").With("required_bytes", int64(8<<30)).
		With("shortfall_bytes", int64(1<<30)).With("holders", []schemas.Holder{{Owner: "default", Bytes: 3 << 30}})
	b := startNode(t, replies(map[schemas.Action]any{schemas.ActionAllocate: full}))
	never := schemas.Errorf(schemas.CodeOutOfMemory, "8589934592 bytes can never fit: the limit of gpu-0 is 1073741824 bytes").With("limit_bytes", int64(1<<30))
	small := startNode(t, replies(map[schemas.Action]any{schemas.ActionAllocate: never}))
	empty := startNode(t, nil)
	guarded := startServer(t, nil, bus.ServerConfig{Listen: "127.0.0.1:0", Username: "me", Password: "right"})
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"refused": {[]string{"call", "allocate", "size_bytes=8GiB", "--url", b.URL()}, exitRefused,
			"isobar: OUT_OF_MEMORY (503): no room on gpu-0 before the deadline. holders default (3.00 GiB), required 8.00 GiB, shortfall 1.00 GiB. " +
				"Release something, ask for less, or wait longer in the queue with timeout_seconds; `isobar status` shows who holds what.\n"},
		"refused, MessagePack": {[]string{"call", "allocate", "size_bytes=8GiB", "--msgpack", "--url", b.URL()}, exitRefused,
			"isobar: OUT_OF_MEMORY (503): no room on gpu-0 before the deadline. holders default (3.00 GiB), required 8.00 GiB, shortfall 1.00 GiB. " +
				"Release something, ask for less, or wait longer in the queue with timeout_seconds; `isobar status` shows who holds what.\n"},
		"can never fit": {[]string{"call", "allocate", "size_bytes=8GiB", "--url", small.URL()}, exitRefused,
			"isobar: OUT_OF_MEMORY (503): 8589934592 bytes can never fit: the limit of gpu-0 is 1073741824 bytes. limit 1.00 GiB. " +
				"Ask for less, or raise the limit: `isobar call set_limits --describe`.\n"},
		"shape": {[]string{"call", "allocate", "size_bytes=0", "--url", b.URL()}, exitRefused, "INVALID_REQUEST"},
		"no node": {[]string{"call", "get_pressure", "--url", empty.URL()}, exitNoNode,
			"isobar: NO_NODE (503): no node answers on memory.get_pressure. Start one with `isobar run`, or name its server with --url and the node with --node.\n"},
		"another node":          {[]string{"call", "get_pressure", "--node", "there", "--url", b.URL()}, exitNoNode, "memory.get_pressure.there"},
		"no server":             {[]string{"call", "get_pressure", "--url", "nats://127.0.0.1:1"}, exitNoNode, "no NATS server at nats://127.0.0.1:1"},
		"refused by the server": {[]string{"call", "get_pressure", "--url", guarded.URL()}, exitRefused, "Authorization Violation. The server refuses these credentials"},
		"unknown action":        {[]string{"call", "alocate"}, exitUsage, "did you mean allocate?"},
		"no action":             {[]string{"call"}, exitUsage, "isobar call --list"},
		"bad pair":              {[]string{"call", "allocate", "size"}, exitUsage, `"size" is not key=value`},
		"bad node":              {[]string{"call", "get_pressure", "--node", "A B"}, exitUsage, "cannot be a node's name"},
		"dry run":               {[]string{"call", "get_pressure", "--dry-run"}, exitUsage, "changes nothing"},
		"wait":                  {[]string{"call", "get_pressure", "--wait", "1s"}, exitUsage, "answered at once"},
		"unknown flag":          {[]string{"call", "allocate", "--tabel"}, exitUsage, "`isobar call --help` says how"},
		"unknown command":       {[]string{"cal"}, exitUsage, "`isobar --help` says how"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture()
			code := f.run(t, c.args...)
			if code != c.code || !strings.Contains(f.err.String(), c.want) || f.out.String() != "" {
				t.Errorf("exit code %d, want %d; out %q, err %q, want %q", code, c.code, f.out, f.err, c.want)
			}
			if strings.Count(f.err.String(), "\n") != 1 {
				t.Errorf("the error is not one line: %q", f.err)
			}
		})
	}
}

// queued is a node where load_model is queued, then runs, then is done.
func queued() desk {
	asked := 0
	return func(c *actors.Command) {
		switch c.Action {
		case schemas.ActionLoadModel:
			c.Reply.Done(&schemas.Pending{Status: schemas.StatusQueued, OperationID: "op-1", Position: 2, EstimatedMs: 3000, Reason: "lacks 12 MiB"}, nil)
		case schemas.ActionGetOperation:
			asked++
			op := schemas.Operation{OperationID: "op-1", Action: schemas.ActionLoadModel, Status: schemas.StatusRunning, BytesDone: int64(asked) << 28,
				BytesTotal: 1 << 30, ThroughputBytesPerSecond: 1 << 28}
			if asked == 4 {
				op.Status = schemas.StatusCompleted
				op.Result = &schemas.LoadModelReply{Finished: schemas.Done(), Loaded: true}
			}
			c.Reply.Done(&schemas.GetOperationReply{Operation: op}, nil)
		}
	}
}

func TestCallFollowsAnOperation(t *testing.T) {
	for name, width := range map[string]int{"plain": 0, "terminal": 80} {
		b := startNode(t, queued())
		f := newFixture()
		f.errTerminal = width
		if code := f.run(t, "call", "load_model", "name=a", "path=/m/a.gguf", "--url", b.URL()); code != exitDone {
			t.Fatalf("exit code %d: %s", code, f.err)
		}
		var reply schemas.LoadModelReply
		if err := json.Unmarshal([]byte(f.out.String()), &reply); err != nil || !reply.Loaded {
			t.Errorf("the reply is %q, %v", f.out, err)
		}
		golden(t, "call_progress_"+name+".txt", strings.ReplaceAll(f.err.String(), "\r", "\\r\n"))
	}
}

func TestCallNeedNotFollow(t *testing.T) {
	b := startNode(t, queued())
	f := newFixture()
	code := f.run(t, "call", "load_model", "name=a", "--no-follow", "--url", b.URL())
	if code != exitDone || !strings.Contains(f.out.String(), `"operation_id":"op-1"`) {
		t.Errorf("exit code %d: %s %s", code, f.out, f.err)
	}
}

// Ctrl-C cancels at the node, and the node's word on it is the outcome.
func TestInterruptCancelsAtTheNode(t *testing.T) {
	running, cancelled := make(chan *actors.Command, 1), make(chan *actors.Command, 1)
	b := startNode(t, desk(func(c *actors.Command) {
		switch c.Action {
		case schemas.ActionAllocate:
			running <- c
		case schemas.ActionCancelOperation:
			cancelled <- c
		}
	}))
	f := newFixture()
	done := f.start("call", "allocate", "size_bytes=1GiB", "--wait", "10m", "--url", b.URL())
	command := wait(t, running)
	f.interrupts <- os.Interrupt
	cancel := wait(t, cancelled)
	if id := cancel.Data.(*schemas.CancelOperationRequest).RequestID; id != command.RequestID {
		t.Errorf("cancelled %q, want %q", id, command.RequestID)
	}
	cancel.Reply.Done(&schemas.CancelOperationReply{Finished: schemas.Done()}, nil)
	command.Reply.Fail(schemas.Errorf(schemas.CodeCancelled, "cancelled by its client"))
	if code := wait(t, done); code != exitRefused || !strings.Contains(f.err.String(), "CANCELLED (499)") {
		t.Errorf("exit code %d: %s", code, f.err)
	}
}

// A second Ctrl-C leaves, whatever the node does, and says what is not known.
func TestSecondInterruptLeaves(t *testing.T) {
	running, cancelled := make(chan *actors.Command, 1), make(chan *actors.Command, 1)
	b := startNode(t, desk(func(c *actors.Command) {
		switch c.Action {
		case schemas.ActionAllocate:
			running <- c
		case schemas.ActionCancelOperation:
			cancelled <- c
		}
	}))
	f := newFixture()
	done := f.start("call", "allocate", "size_bytes=1GiB", "--wait", "10m", "--request-id", "mine", "--url", b.URL())
	wait(t, running)
	f.interrupts <- os.Interrupt
	wait(t, cancelled)
	f.interrupts <- os.Interrupt
	if code := wait(t, done); code != exitRefused || !strings.Contains(f.err.String(), "get_operation request_id=mine") {
		t.Errorf("exit code %d: %s", code, f.err)
	}
}

func TestDescribeAndList(t *testing.T) {
	f := newFixture()
	f.run(t, "call", "allocate", "--describe")
	golden(t, "describe_allocate.txt", f.out.String())
	f = newFixture()
	f.run(t, "call", "--list")
	golden(t, "list.txt", f.out.String())
}

// Nobody is left without advice.
func TestEveryCodeHasAdvice(t *testing.T) {
	for _, c := range schemas.Codes() {
		if advice(schemas.Errorf(c.Code, "x")) == "" {
			t.Errorf("%s has no advice", c.Code)
		}
		if s := paragraph(schemas.Errorf(c.Code, "x.")); !strings.HasSuffix(s, ".") || strings.Contains(s, "..") || strings.Contains(s, "\n") {
			t.Errorf("%s: %q is not a paragraph", c.Code, s)
		}
	}
}
