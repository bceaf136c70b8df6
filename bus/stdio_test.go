package bus_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

type spokenReply struct {
	Success   bool         `json:"success"`
	RequestID string       `json:"request_id"`
	Node      string       `json:"node"`
	ErrorCode schemas.Code `json:"error_code"`
}

func TestStdio(t *testing.T) {
	in := strings.Join([]string{
		`{"request_id":"a","action":"memory.allocate","data":{"size_bytes":4096}}`,
		``,
		`{"request_id":"b","action":"list_devices"}`,
		`{"request_id":"c","action":"make_coffee"}`,
		`{"request_id":"d"}`,
		`not json`,
		`{"request_id":"e","action":"list_devices","data":{"x":"` + strings.Repeat("x", 300<<10) + `"}}`,
		`{"request_id":"f","action":"list_devices"}`, // no newline at the end
	}, "\n")
	var out strings.Builder
	if err := bus.Stdio(t.Context(), strings.NewReader(in), &out, bus.StdioConfig{Node: "here", Desk: grantAll}); err != nil {
		t.Fatal(err)
	}
	got := map[string]schemas.Code{}
	codes := map[schemas.Code]int{}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for _, l := range lines {
		var r spokenReply
		if err := json.Unmarshal([]byte(l), &r); err != nil || r.RequestID == "" || r.Node != "here" || r.Success != (r.ErrorCode == "") {
			t.Errorf("%v: %s", err, l)
		}
		got[r.RequestID] = r.ErrorCode
		codes[r.ErrorCode]++
	}
	if got["a"] != "" || got["b"] != "" || got["f"] != "" || got["c"] != schemas.CodeUnknownAction || got["d"] != schemas.CodeInvalidRequest {
		t.Errorf("answers %v", got)
	}
	if len(lines) != 7 || codes[schemas.CodePayloadTooLarge] != 1 || codes[schemas.CodeInvalidRequest] != 2 {
		t.Errorf("%d lines with codes %v", len(lines), codes)
	}
}

// A command says when it came, and which trace it belongs to.
func TestStdioCommandsAreTraced(t *testing.T) {
	c := clock.NewManual(5, time.Time{})
	trace := &actors.Trace{ID: [16]byte{1}}
	var seen actors.Command
	d := desk(func(c *actors.Command) {
		seen = *c
		c.Reply.Done(nil, nil)
	})
	err := bus.Stdio(t.Context(), strings.NewReader(`{"action":"list_devices"}`), io.Discard,
		bus.StdioConfig{Desk: d, Clock: c, Trace: func() *actors.Trace { return trace }})
	if err != nil || seen.Arrived != c.Now() || seen.Trace != trace {
		t.Errorf("%v: arrived %v, trace %v", err, seen.Arrived, seen.Trace)
	}
}

// Answers come as commands are done; no more than the bound are unanswered.
func TestStdioBoundsWhatIsInFlight(t *testing.T) {
	held := make(chan *actors.Command, 10*bus.StdioInFlight)
	r, w := io.Pipe()
	var out strings.Builder
	ended := make(chan error, 1)
	go func() {
		ended <- bus.Stdio(t.Context(), r, &out, bus.StdioConfig{Node: "here", Desk: desk(func(c *actors.Command) { held <- c })})
	}()
	const total = 3 * bus.StdioInFlight
	go func() {
		defer w.Close()
		b := bufio.NewWriter(w)
		for i := range total {
			fmt.Fprintf(b, `{"request_id":"%d","action":"list_devices"}`+"\n", i)
		}
		_ = b.Flush() // fails only when the reader has ended, which the test sees
	}()
	var first []*actors.Command
	for range bus.StdioInFlight {
		first = append(first, <-held)
	}
	if len(held) != 0 {
		t.Errorf("%d commands beyond the bound", len(held))
	}
	for i := len(first) - 1; i >= 0; i-- { // the last first
		first[i].Reply.Done(nil, nil)
	}
	for range total - len(first) {
		(<-held).Reply.Done(nil, nil)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != total || !strings.Contains(lines[0], fmt.Sprintf(`"%d"`, len(first)-1)) {
		t.Errorf("%d lines, the first %s", len(lines), lines[0])
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestStdioUndoesWhatItCannotSay(t *testing.T) {
	undone := make(chan struct{}, 2)
	d := desk(func(c *actors.Command) { c.Reply.Done(granted(), func() { undone <- struct{}{} }) })
	err := bus.Stdio(t.Context(), strings.NewReader(`{"action":"allocate","data":{"size_bytes":1}}`+"\n"), brokenPipe{}, bus.StdioConfig{Desk: d})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
	<-undone

	// What is answered after the end is undone too.
	held := make(chan *actors.Command, 1)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- bus.Stdio(ctx, r, io.Discard, bus.StdioConfig{Desk: desk(func(c *actors.Command) { held <- c })})
	}()
	if _, err := io.WriteString(w, `{"action":"allocate","data":{"size_bytes":1}}`+"\n"); err != nil {
		t.Fatal(err)
	}
	c := <-held
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c.Reply.Done(granted(), func() { undone <- struct{}{} })
	<-undone
	w.Close()
}
