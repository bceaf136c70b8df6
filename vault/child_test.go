package vault

import (
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

// stop makes the process silent: it lives, and no thread of it runs. The signal is only
// the wish; until the kernel says that the process has stopped, it may still answer.
func (n *node) stop() {
	n.t.Helper()
	if err := unix.Kill(n.hello.PID, unix.SIGSTOP); err != nil {
		n.t.Fatal(err)
	}
	for {
		err := unix.Waitid(unix.P_PID, n.hello.PID, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			n.t.Fatal(err)
		}
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

// wantEntries wants exactly the ids from..from+count, byte for byte.
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

// descriptors are this process's, each as its number and what it is. What an earlier test
// left to a goroutine may go at any time, so that their number alone says little.
func descriptors(t testing.TB) map[string]bool {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]bool{}
	for _, e := range list {
		// The list's own is closed by now.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[e.Name()+" "+to] = true
		}
	}
	return open
}

func fdsOf(t testing.TB, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
