package vault

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// TestFence reads as scenarios: a line is an event and the effects it must have.
// Times are seconds; a silent node has 2, an ending one 10. Connection N belongs to
// process N unless told by pid=.
func TestFence(t *testing.T) {
	for _, tc := range []struct{ name, script string }{
		{"first come", `
			hello 1 -> admit 1`},
		{"the dead one's successor", `
			hello 1 -> admit 1
			disconnected 1 ->
			exited 1 -> forget 1
			hello 2 -> admit 2`},
		{"one that answers is not ended", `
			hello 1 -> admit 1
			hello 2 -> ping 1
			pong 1 -> refuse 2 for 1
			tick 100 ->
			hello 3 -> ping 1
			pong 1 -> refuse 3 for 1`},
		{"a silent one is ended, and its successor waits for the kernel", `
			hello 1 -> admit 1
			hello 2 -> ping 1
			tick 1 ->
			tick 2 -> kill 1
			disconnected 1 ->
			pong 1 ->
			exited 1 -> forget 1, admit 2`},
		{"one that dies while it is asked", `
			hello 1 -> admit 1
			hello 2 -> ping 1
			disconnected 1 ->
			exited 1 -> forget 1, admit 2`},
		{"take over ends one that would answer", `
			hello 1 -> admit 1
			hello 2 take -> kill 1
			pong 1 ->
			exited 1 -> forget 1, admit 2`},
		{"one that cannot be ended keeps the vault", `
			hello 1 -> admit 1
			hello 2 take -> kill 1
			tick 10 -> refuse 2 for 1
			tick 20 ->
			exited 1 -> forget 1
			hello 3 -> admit 3`},
		{"bye releases without death", `
			hello 1 -> admit 1
			bye 1 -> forget 1
			hello 2 -> admit 2
			exited 1 ->`},
		{"bye while another asks", `
			hello 1 -> admit 1
			hello 2 -> ping 1
			bye 1 -> forget 1, admit 2`},
		{"the same process may come back", `
			hello 1 -> admit 1
			disconnected 1 ->
			hello 2 pid=1 -> forget 1, admit 2
			exited 1 ->`},
		{"a disconnected one has time to come back while another asks", `
			hello 1 -> admit 1
			disconnected 1 ->
			hello 2 ->
			hello 3 pid=1 -> forget 1, admit 3, ping 3
			pong 3 -> refuse 2 for 1`},
		{"a disconnected one that does not come back is ended", `
			hello 1 -> admit 1
			disconnected 1 ->
			hello 2 ->
			tick 2 -> kill 1
			exited 1 -> forget 1, admit 2`},
		{"who asks goes away", `
			hello 1 -> admit 1
			hello 2 -> ping 1
			disconnected 2 ->
			tick 5 ->
			pong 1 ->
			hello 3 -> ping 1
			tick 6 ->
			tick 7 -> kill 1`},
		{"several wait in line", `
			hello 1 -> admit 1
			hello 2 -> ping 1
			hello 3 ->
			exited 1 -> forget 1, admit 2, ping 2
			pong 2 -> refuse 3 for 2`},
		{"take over behind a polite one", `
			hello 1 -> admit 1
			hello 2 -> ping 1
			hello 3 take ->
			pong 1 -> refuse 2 for 1, kill 1
			exited 1 -> forget 1, admit 3`},
		{"the second in line gets a whole question", `
			hello 1 -> admit 1
			hello 2 -> ping 1
			tick 1 ->
			hello 3 ->
			disconnected 2 -> ping 1
			tick 2 ->
			tick 3 -> kill 1`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := fence{pingTimeout: 2 * time.Second, endTimeout: 10 * time.Second}
			var now clock.Instant
			for _, line := range strings.Split(strings.TrimSpace(tc.script), "\n") {
				event, want, _ := strings.Cut(strings.TrimSpace(line), "->")
				words := strings.Fields(event)
				var n uint64
				fmt.Sscan(words[1], &n)
				var got []effect
				switch words[0] {
				case "hello":
					c := claimant{conn: n, pid: int(n), start: 1}
					for _, w := range words[2:] {
						if w == "take" {
							c.takeOver = true
						} else {
							fmt.Sscanf(w, "pid=%d", &c.pid)
						}
					}
					got = f.hello(now, c)
				case "pong":
					got = f.pong(now, n)
				case "exited":
					got = f.exited(now, n)
				case "bye":
					got = f.bye(now, n)
				case "disconnected":
					got = f.disconnected(now, n)
				case "tick":
					now = clock.Instant(0).Add(time.Duration(n) * time.Second)
					got = f.tick(now)
				default:
					t.Fatalf("unknown event %q", line)
				}
				if s := format(got); s != strings.TrimSpace(want) {
					t.Fatalf("%s: got %q, want %q", line, s, want)
				}
				if at, ok := f.deadline(); ok && at <= now {
					t.Fatalf("%s: the deadline %v has passed unnoticed", line, at)
				}
			}
		})
	}
}

func format(effects []effect) string {
	var out []string
	for _, e := range effects {
		switch e.kind {
		case admit:
			out = append(out, fmt.Sprintf("admit %d", e.conn))
		case refuse:
			out = append(out, fmt.Sprintf("refuse %d for %d", e.conn, e.pid))
		case ping:
			out = append(out, fmt.Sprintf("ping %d", e.conn))
		case kill:
			out = append(out, fmt.Sprintf("kill %d", e.conn))
		case forget:
			out = append(out, fmt.Sprintf("forget %d", e.conn))
		}
	}
	return strings.Join(out, ", ")
}
