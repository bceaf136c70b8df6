package vault

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTheVaultClosesWhatIsDroppedAndLeaksNothing(t *testing.T) {
	socket, pid := spawnVault(t)
	n := startNode(t, socket)
	n.must(order{Do: "put", From: 1, Count: 1})
	base := fdsOf(t, pid)
	for range 3 {
		n.must(order{Do: "put", From: 300, Count: 50})
		if got := fdsOf(t, pid); got != base+50 {
			t.Fatalf("the vault has %d descriptors, want %d", got, base+50)
		}
		// Acknowledged means closed: no waiting here.
		n.must(order{Do: "drop", From: 300, Count: 50})
		if got := fdsOf(t, pid); got != base {
			t.Fatalf("the vault has %d descriptors, want %d", got, base)
		}
	}
}

func TestASpawnedVaultInheritsNothing(t *testing.T) {
	// A descriptor that a careless parent left open across exec.
	var p [2]int
	if err := unix.Pipe2(p[:], 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	socket, pid := spawnVault(t)
	unix.Close(p[1])
	var b [1]byte
	// Were the write end open in the vault, this would block.
	if n, err := unix.Read(p[0], b[:]); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	if pgrp, sid := fields[2], fields[3]; pgrp != fmt.Sprint(pid) || sid != pgrp {
		t.Fatalf("process group %s and session %s are not its own (pid %d)", pgrp, sid, pid)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
		t.Fatalf("directory %q, %v", cwd, err)
	}
	st, err := os.Stat(socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	if st, err = os.Stat(filepath.Dir(socket)); err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("mode of the directory %v, %v", st.Mode(), err)
	}
}

func TestSpawnedTwiceAtOnceThereIsOneVault(t *testing.T) {
	socket, pid := spawnVault(t)
	errs := make(chan error)
	for range 8 {
		go func() { errs <- Spawn(spawnConfig(t, socket)) }()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if again := vaultPID(t, socket); again != pid {
		t.Fatalf("vault %d became %d", pid, again)
	}
}

func TestAnEmptyVaultEndsWithItsNodeAndIsReplaced(t *testing.T) {
	socket, pid := spawnVault(t)
	pidfd := watchVault(t, pid)
	defer pidfd.Close()
	n := startNode(t, socket)
	n.must(order{Do: "put", From: 300, Count: 1})
	n.must(order{Do: "drop", From: 300, Count: 1})
	n.kill()
	await(pidfd)
	// Gone with its socket, so the next connect starts another.
	spawned := 0
	c, entries, err := Connect(t.Context(), ClientConfig{SocketPath: socket, Spawn: func() error {
		spawned++
		return Spawn(spawnConfig(t, socket))
	}})
	if err != nil || len(entries) != 0 || spawned != 1 {
		t.Fatalf("%d entries, %d spawned, %v", len(entries), spawned, err)
	}
	pid = vaultPID(t, socket)
	next := watchVault(t, pid)
	defer next.Close()
	if err := c.Close(true); err != nil {
		t.Fatal(err)
	}
	await(next) // empty, and released
}

func TestTheNodeLearnsThatTheVaultIsLost(t *testing.T) {
	socket, pid := spawnVault(t)
	c, _ := connect(t, socket)
	f, err := segment(300)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.Put(Entry{ID: 300, File: f}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.Lost()
	if err := c.Put(Entry{ID: 301, File: f}); !errors.Is(err, ErrLost) {
		t.Fatalf("put: %v", err)
	}
	if err := c.Drop(300); !errors.Is(err, ErrLost) {
		t.Fatalf("drop: %v", err)
	}
	// The socket is stale; a new vault takes its place and everything goes there.
	again, entries, err := Connect(t.Context(), ClientConfig{SocketPath: socket, Spawn: func() error { return Spawn(spawnConfig(t, socket)) }})
	if err != nil || len(entries) != 0 {
		t.Fatal(entries, err)
	}
	pidfd := watchVault(t, vaultPID(t, socket))
	defer pidfd.Close()
	if err := again.Put(Entry{ID: 300, File: f}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Drop(300), again.Close(true)); err != nil {
		t.Fatal(err)
	}
	await(pidfd)
}

func TestTwoThousandSegments(t *testing.T) {
	const count = 2000
	socket, pid := spawnVault(t)
	c, _ := connect(t, socket)
	files := make([]*os.File, count)
	for i := range files {
		var err error
		if files[i], err = segment(1000 + uint64(i)); err != nil {
			t.Fatal(err)
		}
		defer files[i].Close()
	}
	start := time.Now()
	const callers = 16
	errs := make(chan error, callers)
	for k := range callers {
		go func() {
			var err error
			for i := k; i < count && err == nil; i += callers {
				err = c.Put(Entry{ID: 1000 + uint64(i), Label: "ram-0", File: files[i]})
			}
			errs <- err
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	put := time.Since(start)
	if err := c.Close(true); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	next, entries := connect(t, socket)
	handed := time.Since(start)
	wantEntries(t, entries, 1000, count)
	start = time.Now()
	stats, err := next.List()
	if err != nil || len(stats) != count {
		t.Fatal(len(stats), err)
	}
	listed := time.Since(start)
	ids := make([]uint64, 0, count)
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	start = time.Now()
	if err := next.Drop(ids...); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d segments: put one by one by %d callers in %v, handed over in %v, listed in %v, dropped in %v; %s",
		count, callers, put, handed, listed, time.Since(start), rss(t, pid))
}

// rss is the private memory line of a process.
func rss(t testing.TB, pid int) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), "RssAnon") {
			return strings.Join(strings.Fields(s.Text()), " ")
		}
	}
	return ""
}
