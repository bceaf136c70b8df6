package seam

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// newTestMailbox is a mailbox without goroutines: what it delivers is appended
// to the returned slice when the test runs a turn.
func newTestMailbox(depth int) (*mailbox, *[]any) {
	var got []any
	m := &mailbox{}
	for l := range m.lanes {
		m.lanes[l].limit = depth
	}
	m.deliver = func(msg any) { got = append(got, msg) }
	m.control = func(msg any) { got = append(got, msg) }
	m.schedule = func() {}
	m.failed = func(v any) { got = append(got, fmt.Sprintf("panic: %v", v)) }
	return m, &got
}

func mustPush(t *testing.T, m *mailbox, l Lane, msg any) bool {
	t.Helper()
	wake, err := m.push(l, msg)
	if err != nil {
		t.Fatalf("push %v on %v: %v", msg, l, err)
	}
	return wake
}

func TestHigherLanesGoFirstAndEachLaneKeepsItsOrder(t *testing.T) {
	m, got := newTestMailbox(8)
	for _, step := range []struct {
		lane Lane
		msg  string
	}{
		{QueryLane, "q1"}, {GrantLane, "g1"}, {ReleaseLane, "r1"}, {QueryLane, "q2"},
		{SystemLane, "s1"}, {GrantLane, "g2"}, {SystemLane, "s2"}, {ReleaseLane, "r2"},
	} {
		mustPush(t, m, step.lane, step.msg)
	}
	m.turn()
	if want := "[s1 s2 r1 r2 g1 g2 q1 q2]"; fmt.Sprint(*got) != want {
		t.Fatalf("delivered %v, want %s", *got, want)
	}
}

func TestLifecycleGoesBeforeEveryLane(t *testing.T) {
	m, got := newTestMailbox(8)
	mustPush(t, m, SystemLane, "s")
	m.pushLifecycle("stop")
	m.turn()
	if fmt.Sprint(*got) != "[stop s]" {
		t.Fatalf("delivered %v", *got)
	}
}

func TestAWaitingQueryIsNotStarved(t *testing.T) {
	m, got := newTestMailbox(1000)
	mustPush(t, m, QueryLane, "q1")
	mustPush(t, m, QueryLane, "q2")
	for range 3 * QueryQuota {
		mustPush(t, m, GrantLane, "g")
	}
	m.turn()
	var at []int
	for i, msg := range *got {
		if msg != "g" {
			at = append(at, i)
		}
	}
	if len(at) != 2 || at[0] != QueryQuota || at[1] != 2*QueryQuota+1 {
		t.Fatalf("queries were delivered at %v, want after each %d grants", at, QueryQuota)
	}
}

func TestAFullLaneRefusesAndTheOthersDoNot(t *testing.T) {
	m, got := newTestMailbox(5)
	for i := range 5 {
		mustPush(t, m, GrantLane, i)
	}
	if _, err := m.push(GrantLane, 5); err != ErrBusy {
		t.Fatalf("sixth message on a lane of five: %v, want ErrBusy", err)
	}
	mustPush(t, m, ReleaseLane, "r")
	if d := m.depth(); d != [4]int{0, 1, 5, 0} {
		t.Fatalf("depth %v", d)
	}
	m.turn()
	mustPush(t, m, GrantLane, 6)
	m.turn()
	if fmt.Sprint(*got) != "[r 0 1 2 3 4 6]" {
		t.Fatalf("delivered %v", *got)
	}
}

func TestExactlyTheFirstPushToAnIdleMailboxWakes(t *testing.T) {
	m, _ := newTestMailbox(5)
	if !mustPush(t, m, QueryLane, 1) {
		t.Fatal("push to an idle mailbox did not ask for a turn")
	}
	if mustPush(t, m, SystemLane, 2) {
		t.Fatal("push to a scheduled mailbox asked for a second turn")
	}
	m.turn()
	if !mustPush(t, m, QueryLane, 3) {
		t.Fatal("push after the turn did not ask for a turn")
	}
}

func TestAPanicEndsNoTurn(t *testing.T) {
	m, got := newTestMailbox(5)
	deliver := m.deliver
	m.deliver = func(msg any) {
		if msg == "bad" {
			panic(msg)
		}
		deliver(msg)
	}
	for _, msg := range []any{1, "bad", nil, 2} {
		mustPush(t, m, GrantLane, msg)
	}
	m.turn()
	if fmt.Sprint(*got) != "[1 panic: bad <nil> 2]" {
		t.Fatalf("delivered %v", *got)
	}
}

func TestALentTurnLeavesTheRestScheduled(t *testing.T) {
	m, got := newTestMailbox(100)
	scheduled := 0
	m.schedule = func() { scheduled++ }
	for i := range 10 {
		mustPush(t, m, GrantLane, i)
	}
	m.turnOf(3)
	if len(*got) != 3 || scheduled != 1 {
		t.Fatalf("a turn of 3 delivered %d and scheduled %d turns", len(*got), scheduled)
	}
	if mustPush(t, m, GrantLane, 10) {
		t.Fatal("the mailbox went idle with messages in it")
	}
	m.turn()
	if len(*got) != 11 {
		t.Fatalf("delivered %v", *got)
	}
}

func TestAClosedMailboxForgetsWhatWaits(t *testing.T) {
	m, got := newTestMailbox(5)
	mustPush(t, m, GrantLane, 1)
	if !m.close() || m.close() {
		t.Fatal("close must report the first time only")
	}
	if _, err := m.push(SystemLane, 2); err != ErrStopped {
		t.Fatalf("push after close: %v, want ErrStopped", err)
	}
	m.turn()
	if len(*got) != 0 {
		t.Fatalf("delivered %v after close", *got)
	}
}

// TestMailboxAgainstPlainQueues compares with four slices and a rule.
func TestMailboxAgainstPlainQueues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		depth := rapid.IntRange(1, 40).Draw(t, "depth")
		m, _ := newTestMailbox(depth)
		var plain [laneCount][]int
		passed, seq, scheduled := 0, 0, false
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				l := Lane(rapid.IntRange(0, laneCount-1).Draw(t, "lane"))
				seq++
				wake, err := m.push(l, seq)
				if (err == ErrBusy) != (len(plain[l]) == depth) {
					t.Fatalf("push with %d of %d waiting: %v", len(plain[l]), depth, err)
				}
				if err == nil {
					plain[l] = append(plain[l], seq)
					if wake == scheduled {
						t.Fatalf("wake %v while scheduled %v", wake, scheduled)
					}
					scheduled = true
				}
			},
			"next": func(t *rapid.T) {
				if !scheduled {
					return
				}
				want := -1
				for l := range plain {
					if len(plain[l]) > 0 {
						want = l
						break
					}
				}
				if len(plain[QueryLane]) > 0 && passed == QueryQuota {
					want = int(QueryLane)
				}
				if want >= 0 && Lane(want) != QueryLane && len(plain[QueryLane]) > 0 {
					passed++
				} else {
					passed = 0
				}
				msg, _, ok := m.next()
				if ok != (want >= 0) {
					t.Fatalf("next is %v %v with %v", msg, ok, plain)
				}
				if !ok {
					scheduled = false
					return
				}
				if msg != plain[want][0] {
					t.Fatalf("next is %v, want %v of lane %v", msg, plain[want][0], Lane(want))
				}
				plain[want] = plain[want][1:]
			},
		})
	})
}
