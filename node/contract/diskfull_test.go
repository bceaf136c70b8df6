package contract

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// smallDisk names, for the inner process of the test below, the folder to mount a disk on.
const smallDisk = "ISOBAR_TEST_SMALL_DISK"

// A disk that is full stops the history of events, and nothing else. The disk is a tmpfs of
// a megabyte, in a process with mounts of its own.
func TestADiskFullUnderJetStream(t *testing.T) {
	if dir := os.Getenv(smallDisk); dir != "" {
		controlOnAFullDisk(t, dir)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestADiskFullUnderJetStream$", "-test.v")
	cmd.Env = append(os.Environ(), smallDisk+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 { // one's own mounts need a user namespace of one's own
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestADiskFullUnderJetStream") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func controlOnAFullDisk(t *testing.T, dir string) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	s := natsServer(t, &server.Options{JetStream: true, StoreDir: filepath.Join(dir, "js"), JetStreamMaxStore: 64 << 20, JetStreamMaxMemory: 1 << 20})
	n := nodetest.Start(t, on(s.ClientURL()), nodetest.Set(func(c *node.Config) { c.EventsBytes = 32 << 20 }))
	c := n.Client(t)
	grant := func() {
		t.Helper()
		var g schemas.AllocateReply
		if err := c.Call(t0(t), schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: mib, Purpose: strings.Repeat("p", 200)}, &g); err != nil {
			t.Fatal(err)
		}
		if err := c.Call(t0(t), schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID}, nil); err != nil {
			t.Fatal(err)
		}
	}
	nc := connect(t, s.ClientURL())
	events, err := nc.SubscribeSync(schemas.EventSubjects())
	if err != nil {
		t.Fatal(err)
	}
	grant()
	if _, err := events.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = filler.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, io.ErrShortWrite) {
		t.Fatal(err)
	}
	for i := range 50 {
		grant()
		if _, err := events.NextMsg(patience); err != nil { // who listens goes on hearing
			t.Fatalf("grant %d: %v", i, err)
		}
	}
}
