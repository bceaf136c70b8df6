package vault

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/fdwire"
)

func TestKillAtEveryPointOfAPut(t *testing.T) {
	for _, tc := range []struct {
		crash string
		want  int
	}{
		{"vault.put.before 1", 0},
		{"vault.put.after 1", 1},
		{"vault.put.before 5", 4},
		{"vault.put.after 5", 5},
	} {
		t.Run(tc.crash, func(t *testing.T) {
			socket, _ := spawnVault(t)
			// A first node leaves something, so that the vault outlives an empty second.
			first := startNode(t, socket)
			first.must(order{Do: "put", From: 1, Count: 1})
			first.kill()
			n := startNode(t, socket, "CRASH="+tc.crash)
			if len(n.hello.Entries) != 1 {
				t.Fatalf("second node got %v", n.hello.Entries)
			}
			if _, err := n.tell(order{Do: "put", From: 2, Count: 10}); err == nil {
				t.Fatal("the node outlived its crash point")
			}
			_, entries := connect(t, socket)
			wantEntries(t, entries, 1, 1+tc.want)
		})
	}
}

func TestASecondNodeIsRefusedWhileTheFirstAnswers(t *testing.T) {
	socket, _ := spawnVault(t)
	first := startNode(t, socket)
	first.must(order{Do: "put", From: 300, Count: 3})
	second := startNode(t, socket)
	if second.hello.Holder != first.hello.PID {
		t.Fatalf("second node: %+v, want refused for %d", second.hello, first.hello.PID)
	}
	_, _, err := Connect(t.Context(), ClientConfig{SocketPath: socket})
	var held *HeldError
	if !errors.As(err, &held) || held.PID != first.hello.PID {
		t.Fatalf("connect: %v", err)
	}
	// The first has noticed nothing.
	first.must(order{Do: "put", From: 303, Count: 2})
	stats, err := Query(t.Context(), ClientConfig{SocketPath: socket})
	if err != nil || len(stats) != 5 || stats[4] != (Stat{ID: 304, Label: "test", Bytes: segmentBytes, AllocatedBytes: segmentBytes}) {
		t.Fatalf("%+v, %v", stats, err)
	}
}

func TestASilentNodeIsEndedBeforeItsTableIsHandedOver(t *testing.T) {
	socket, _ := spawnVault(t)
	first := startNode(t, socket)
	first.must(order{Do: "put", From: 300, Count: 3})
	pidfd := watchVault(t, first.hello.PID)
	defer pidfd.Close()
	first.stop()
	_, entries := connect(t, socket)
	if !fdwire.Exited(pidfd) {
		t.Fatal("handed over while the silent node lives")
	}
	wantEntries(t, entries, 300, 3)
}

func TestTakeOverEndsANodeThatAnswers(t *testing.T) {
	socket, _ := spawnVault(t)
	first := startNode(t, socket)
	first.must(order{Do: "put", From: 300, Count: 3})
	pidfd := watchVault(t, first.hello.PID)
	defer pidfd.Close()
	second := startNode(t, socket, "TAKE_OVER=1")
	if second.hello.Err != "" || len(second.hello.Entries) != 3 {
		t.Fatalf("%+v", second.hello)
	}
	if !fdwire.Exited(pidfd) {
		t.Fatal("handed over while the first node lives")
	}
}

func TestByeLetsTheNextNodeInWhileTheFirstLives(t *testing.T) {
	socket, _ := spawnVault(t)
	first := startNode(t, socket)
	first.must(order{Do: "put", From: 300, Count: 3})
	first.must(order{Do: "bye"})
	_, entries := connect(t, socket)
	wantEntries(t, entries, 300, 3)
}

func TestOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can become another user; the check of credentials itself is in this process's own test")
		return
	}
	socket, _ := spawnVault(t)
	// Open the file system's doors, so that only the vault's own check is left.
	for path, mode := range map[string]os.FileMode{filepath.Dir(filepath.Dir(socket)): 0o755, filepath.Dir(socket): 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(t.TempDir(), "stranger")
	data, err := os.ReadFile(exe(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Env = childEnv("stranger", "SOCKET="+socket)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "true ") {
		t.Fatalf("%v: %s", err, out)
	}
}
