package ledger_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

func record(key string, at clock.Instant) ledger.AnswerRecord {
	return ledger.AnswerRecord{Key: key, Digest: [32]byte{1}, Action: "memory.allocate", At: at}
}

func ask(t *testing.T, a *ledger.Answers, key string, digest byte, ref any, now clock.Instant, want ledger.Verdict) *ledger.AnswerRecord {
	t.Helper()
	v, rec, err := a.Ask(key, [32]byte{digest}, ref, now)
	if v != want || (v == ledger.Reject) != (err != nil) {
		t.Fatalf("verdict %d, %v; want %d", v, err, want)
	}
	return rec
}

func TestARepeatedCommandJoinsThenGetsTheFirstOutcome(t *testing.T) {
	a := ledger.NewAnswers(10*time.Minute, 100)
	ask(t, a, "k", 1, "first", 0, ledger.Run)
	ask(t, a, "k", 1, "second", 1, ledger.Join)
	ask(t, a, "k", 2, "other content", 1, ledger.Reject)
	if refs := a.Finish("k", "device/ram-0", record("k", 0), 5); len(refs) != 2 || refs[0] != "first" || refs[1] != "second" {
		t.Fatalf("answered %v", refs)
	}
	if a.Finish("k", "device/ram-0", record("k", 0), 6) != nil {
		t.Fatal("finished twice")
	}
	if rec := ask(t, a, "k", 1, "late", 7, ledger.Replay); rec.Key != "k" {
		t.Fatalf("replayed %+v", rec)
	}
	ask(t, a, "k", 2, "other content", 7, ledger.Reject)
}

func TestACommandThatHadNoEffectIsForgotten(t *testing.T) {
	a := ledger.NewAnswers(10*time.Minute, 100)
	ask(t, a, "k", 1, "first", 0, ledger.Run)
	ask(t, a, "k", 1, "second", 0, ledger.Join)
	if refs := a.Fail("k"); len(refs) != 2 {
		t.Fatalf("answered %v", refs)
	}
	ask(t, a, "k", 2, "again", 1, ledger.Run)
}

func TestAnUndoneOutcomeIsMadeAnew(t *testing.T) {
	a := ledger.NewAnswers(10*time.Minute, 100)
	ask(t, a, "k", 1, "first", 0, ledger.Run)
	if _, ok := a.Undone("k"); ok {
		t.Fatal("a running command was undone")
	}
	a.Finish("k", "here", record("k", 0), 0)
	if home, ok := a.Undone("k"); !ok || home != "here" {
		t.Fatalf("undone at %q", home)
	}
	ask(t, a, "k", 1, "again", clock.Instant(time.Minute), ledger.Run)
	a.Finish("k", "there", record("k", 0), clock.Instant(time.Minute))
	// The first outcome's time is over, the second's is not.
	if out := a.Expire(clock.Instant(10*time.Minute + 1)); out != nil {
		t.Fatalf("expired %v", out)
	}
	if out := a.Expire(clock.Instant(11 * time.Minute)); len(out["there"]) != 1 || a.Len() != 0 {
		t.Fatalf("expired %v, %d left", out, a.Len())
	}
}

func TestRestoredOutcomesExpireByAge(t *testing.T) {
	a := ledger.NewAnswers(10*time.Minute, 100)
	for i, m := range []int{5, 1, 9} {
		a.Restore([]string{"x", "y", "x"}[i], record(string(rune('a'+i)), clock.Instant(m)*clock.Instant(time.Minute)))
	}
	if out := a.Expire(clock.Instant(15 * time.Minute)); len(out["y"]) != 1 || len(out["x"]) != 1 || out["x"][0] != "a" || a.Len() != 1 {
		t.Fatalf("expired %v", out)
	}
}

func TestTheMemoryOfOutcomesIsBounded(t *testing.T) {
	a := ledger.NewAnswers(10*time.Minute, 1)
	ask(t, a, "k", 1, "first", 0, ledger.Run)
	_, _, err := a.Ask("l", [32]byte{1}, "second", 0)
	if err == nil || err.Code != schemas.CodeBusy {
		t.Fatalf("refused with %v", err)
	}
}

func TestLeavingARunningCommand(t *testing.T) {
	a := ledger.NewAnswers(10*time.Minute, 10)
	ask(t, a, "k", 1, "first", 0, ledger.Run)
	ask(t, a, "k", 1, "second", 0, ledger.Join)
	if !a.Leave("k", "second") || a.Leave("k", "second") || a.Leave("k", "first") {
		t.Fatal("only one who joined can leave, and once")
	}
	if refs := a.Fail("k"); len(refs) != 1 {
		t.Fatalf("answered %v", refs)
	}
}
