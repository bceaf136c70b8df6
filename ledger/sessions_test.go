package ledger_test

import (
	"fmt"
	"testing"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

func sessionsConfig() ledger.SessionsConfig {
	n, ids := byte(0), 0
	return ledger.SessionsConfig{Limit: 8, NewID: func() string { ids++; return fmt.Sprint("s", ids) },
		Random: func(b []byte) {
			n++
			for i := range b {
				b[i] = n
			}
		}}
}

// A token is good until the one that replaced it is used: whoever loses the connection
// before he has read the newer one, even several times, comes back with the older, to this
// node or to the next.
func TestATokenIsGoodUntilTheNextIsUsed(t *testing.T) {
	mem := make([]byte, 1<<16)
	region, err := store.Format(mem, "sessions")
	if err != nil {
		t.Fatal(err)
	}
	s := ledger.NewSessions(sessionsConfig(), region)
	p := ledger.Process{PID: 7, Start: 1, UID: 5}
	x, first, fail := s.Open(p)
	if fail != nil {
		t.Fatal(fail)
	}
	id := x.ID
	resume := func(s *ledger.Sessions, token string) string {
		t.Helper()
		_, next, fail := s.Resume(id, token, p)
		if fail != nil {
			t.Fatal(fail)
		}
		return next
	}
	over := func(s *ledger.Sessions, token string) {
		t.Helper()
		if _, _, fail := s.Resume(id, token, p); fail == nil || fail.Code != schemas.CodeStaleHandle {
			t.Errorf("a token that is over: %v", fail)
		}
	}
	lost := resume(s, first) // its Welcome gets lost
	second := resume(s, first)
	over(s, lost)
	next, _, err := ledger.RestoreSessions(sessionsConfig(), append([]byte(nil), mem...), ledger.Now{})
	if err != nil {
		t.Fatal(err)
	}
	resume(next, first)
	third := resume(s, second)
	over(s, first)
	over(s, "")
	if _, _, fail := s.Resume(id, third, ledger.Process{PID: 8, Start: 1, UID: 5}); fail == nil || fail.Code != schemas.CodeForbidden {
		t.Errorf("another process: %v", fail)
	}
	resume(s, third)
	over(s, second)
	if got, ok := s.ProcessOf(id); !ok || got != p {
		t.Errorf("the session's process is %v %v", got, ok)
	}
}
