package replay_test

import (
	"path/filepath"
	"testing"

	"github.com/isobar-project/isobar/eviction/replay"
)

func TestPublished(t *testing.T) {
	empty := t.TempDir()
	if _, _, err := replay.Published(empty, ""); err == nil {
		t.Error("a folder that was named and has no trace is not an error")
	}
	trace, from, err := replay.Published("", filepath.Join(empty, "absent"))
	if err != nil || from != replay.SyntheticName || len(trace.Requests) != 20000 {
		t.Errorf("%q, %v", from, err)
	}
}
