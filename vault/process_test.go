package vault

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/fdwire"
)

// The tests' processes are this binary again, with a role in the environment.
const roleEnv = "VAULT_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "vault":
		childVault()
	case "node":
		childNode()
	case "stranger":
		childStranger()
	}
}

func childVault() {
	// Short enough for a test that waits for it, long enough for a busy machine.
	cfg := RunConfig{Config: Config{
		PingTimeout: 300 * time.Millisecond,
		Log:         slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}}
	if err := Run(context.Background(), cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// content is what memory of an id holds, so that any process can check it.
func content(id uint64, n int) []byte {
	line := fmt.Appendf(nil, "segment %d\n", id)
	return bytes.Repeat(line, n/len(line)+1)[:n]
}

const segmentBytes = 8192

func segment(id uint64) (*os.File, error) {
	fd, err := unix.MemfdCreate("segment", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), fmt.Sprint(id))
	if _, err := f.WriteAt(content(id, segmentBytes), 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// order is what a test tells a node process; reply what it answers.
type order struct {
	Do    string // put, drop, close, bye
	From  uint64
	Count int
}

type reply struct {
	PID     int
	Err     string
	Holder  int // of a HeldError
	Entries []uint64
}

func childNode() {
	out := json.NewEncoder(os.Stdout)
	puts := 0
	var crashPoint string
	var crashAt int
	fmt.Sscanf(os.Getenv("CRASH"), "%s %d", &crashPoint, &crashAt)
	c, entries, err := Connect(context.Background(), ClientConfig{
		SocketPath: os.Getenv("SOCKET"),
		TakeOver:   os.Getenv("TAKE_OVER") != "",
		Crash: func(point string) {
			if point == "vault.put.before" {
				puts++
			}
			if point == crashPoint && puts == crashAt {
				unix.Kill(os.Getpid(), unix.SIGKILL)
			}
		},
	})
	r := reply{PID: os.Getpid()}
	if err != nil {
		r.Err = err.Error()
		var held *HeldError
		if errors.As(err, &held) {
			r.Holder = held.PID
		}
	}
	for _, e := range entries {
		r.Entries = append(r.Entries, e.ID)
	}
	out.Encode(r)
	in := json.NewDecoder(os.Stdin)
	for {
		var o order
		if in.Decode(&o) != nil {
			return
		}
		out.Encode(obey(c, o))
	}
}

func obey(c *Client, o order) reply {
	r := reply{PID: os.Getpid()}
	var err error
	for id := o.From; id < o.From+uint64(o.Count) && err == nil; id++ {
		switch o.Do {
		case "put":
			var f *os.File
			if f, err = segment(id); err == nil {
				err = c.Put(Entry{ID: id, Label: "test", File: f})
				f.Close()
			}
		case "drop":
			err = c.Drop(id)
		}
	}
	switch o.Do {
	case "close":
		err = c.Close(false)
	case "bye":
		err = c.Close(true)
	}
	if err != nil {
		r.Err = err.Error()
	}
	return r
}

// childStranger gives up being root and tries the door.
func childStranger() {
	if err := unix.Setresgid(65534, 65534, 65534); err != nil {
		fmt.Println(err)
		return
	}
	if err := unix.Setresuid(65534, 65534, 65534); err != nil {
		fmt.Println(err)
		return
	}
	_, err := Query(context.Background(), ClientConfig{SocketPath: os.Getenv("SOCKET")})
	// The client sees that root made the socket and would trust it; it is the vault
	// that refuses.
	fmt.Println(errors.Is(err, ErrForbidden), err)
}

// node is a node process.
type node struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    *json.Encoder
	out   *json.Decoder
	hello reply
	dead  bool
}

func childEnv(role string, more ...string) []string {
	return append(append(os.Environ(), roleEnv+"="+role), more...)
}

func exe(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func startNode(t *testing.T, socket string, env ...string) *node {
	t.Helper()
	n := &node{t: t, cmd: exec.Command(exe(t))}
	n.cmd.Env = childEnv("node", append(env, "SOCKET="+socket)...)
	n.cmd.Stderr = os.Stderr
	stdin, err := n.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.kill)
	n.in, n.out = json.NewEncoder(stdin), json.NewDecoder(stdout)
	if err := n.out.Decode(&n.hello); err != nil {
		t.Fatal(err)
	}
	return n
}

// tell gives an order; the error says that the process died of it.
func (n *node) tell(o order) (r reply, err error) {
	if err := n.in.Encode(o); err != nil {
		return r, err
	}
	return r, n.out.Decode(&r)
}

func (n *node) must(o order) {
	n.t.Helper()
	if r, err := n.tell(o); err != nil || r.Err != "" {
		n.t.Fatalf("%+v: %v %s", o, err, r.Err)
	}
}

func (n *node) kill() {
	if !n.dead {
		n.dead = true
		n.cmd.Process.Kill()
		n.cmd.Wait()
	}
}

// spawnVault starts a vault process and ends it after the test.
func spawnVault(t testing.TB) (socket string, pid int) {
	t.Helper()
	// Not t.TempDir: a test's name can make the path too long for a socket.
	dir, err := os.MkdirTemp("", "vault")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "v", "vault.sock")
	if err := Spawn(spawnConfig(t, socket)); err != nil {
		t.Fatal(err)
	}
	pid = vaultPID(t, socket)
	pidfd := watchVault(t, pid)
	t.Cleanup(func() {
		fdwire.Kill(pidfd)
		await(pidfd)
		pidfd.Close()
		if t.Failed() {
			log, _ := os.ReadFile(socket + ".log")
			t.Logf("the vault's log:\n%s", log)
		}
	})
	return socket, pid
}

func spawnConfig(t testing.TB, socket string) SpawnConfig {
	return SpawnConfig{SocketPath: socket, Command: []string{exe(t)}, Env: childEnv("vault"), LogPath: socket + ".log"}
}

func vaultPID(t testing.TB, socket string) int {
	t.Helper()
	conn, welcome, err := dial(t.Context(), ClientConfig{SocketPath: socket}.withDefaults(), roleQuery)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	return welcome.PID
}

func watchVault(t testing.TB, pid int) *os.File {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "pidfd")
}

// await waits until a process is dead.
func await(pidfd *os.File) {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func connect(t testing.TB, socket string) (*Client, []Entry) {
	t.Helper()
	c, entries, err := Connect(t.Context(), ClientConfig{SocketPath: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close(true)
		for _, e := range entries {
			e.File.Close()
		}
	})
	return c, entries
}

// checkEntries wants exactly the ids from..from+count, byte for byte.
func wantEntries(t *testing.T, entries []Entry, from uint64, count int) {
	t.Helper()
	if len(entries) != count {
		t.Fatalf("%d entries, want %d", len(entries), count)
	}
	for i, e := range entries {
		id := from + uint64(i)
		got := make([]byte, segmentBytes+1)
		n, err := e.File.ReadAt(got, 0)
		if e.ID != id || err != io.EOF || !bytes.Equal(got[:n], content(id, segmentBytes)) {
			t.Fatalf("entry %d: id %d, want %d, %d bytes, %v", i, e.ID, id, n, err)
		}
	}
}

func fdsOf(t testing.TB, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

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
	if err := unix.Kill(first.hello.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
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
