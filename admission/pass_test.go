package admission_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/admission"
)

// In whatever order the portions come, and whichever of the doubtful ones do, one who waits
// is served at the same of them whether the slack was taken or not; a byte more, and there
// is an order in which he is served later.
func TestSlackDelaysNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		portion := rapid.Int64Range(1, 12)
		coming := rapid.SliceOfN(portion, 0, 5).Draw(t, "coming")
		perhaps := rapid.SliceOfN(portion, 0, 3).Draw(t, "perhaps")
		lacks := rapid.Int64Range(-5, 40).Draw(t, "lacks")
		slack := admission.Slack(lacks, coming, perhaps)
		all := append(append([]int64{}, coming...), perhaps...)
		var sure int64
		for _, n := range coming {
			sure += n
		}
		if (slack < 0) != (sure < lacks) {
			t.Fatalf("%d are coming, %d lack: slack %d", sure, lacks, slack)
		}
		if slack < 0 {
			return
		}
		// Every set of portions is what has come at some moment of some order.
		tight := false
		for set := range 1 << len(all) {
			var come int64
			for i, n := range all {
				if set>>i&1 == 1 {
					come += n
				}
			}
			if come >= lacks && come < lacks+slack {
				t.Fatalf("of %v and %v, %d have come where %d lack: with a slack of %d taken he still waits", coming, perhaps, come, lacks, slack)
			}
			tight = tight || come >= lacks && come < lacks+slack+1
		}
		if !tight {
			t.Fatalf("of %v and %v with %d lacking a slack of %d is less than could be taken", coming, perhaps, lacks, slack)
		}
	})
}

// Where there is too much to look at nobody passes.
func TestSlackIsBounded(t *testing.T) {
	many := make([]int64, admission.Foreseen+1)
	for i := range many {
		many[i] = 1 << 30
	}
	if s := admission.Slack(1, many, nil); s != -1 {
		t.Errorf("a slack of %d in %d portions", s, len(many))
	}
	if s := admission.Slack(1, many[1:], nil); s != 1<<30-1 {
		t.Errorf("a slack of %d in %d portions", s, len(many)-1)
	}
}
