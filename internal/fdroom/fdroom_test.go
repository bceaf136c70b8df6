package fdroom_test

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/internal/fdroom"
)

// room is how many descriptors the kernel's table has room for now.
func room(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(regexp.MustCompile(`FDSize:\s+(\d+)`).FindSubmatch(text)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMake(t *testing.T) {
	before := room(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	want := 2 * before
	if uint64(want) > limit.Cur {
		t.Skipf("the process may have no more than %d descriptors", limit.Cur)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if err := fdroom.Make(want); err != nil {
		t.Fatal(err)
	}
	if got := room(t); got < want {
		t.Errorf("room for %d descriptors, want %d", got, want)
	}
	if now, err := os.ReadDir("/proc/self/fd"); err != nil || len(now) != len(open) {
		t.Errorf("%d descriptors are open, before %d (%v)", len(now), len(open), err)
	}
	few := unix.Rlimit{Cur: uint64(want), Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err = fdroom.Make(4 * want)
	if back := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || back != nil {
		t.Errorf("more than there may be: %v; %v", err, back)
	}
}
