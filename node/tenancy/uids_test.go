package tenancy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// childEnv makes the test's own program the process of another user: it maps a claim.
const childEnv = "TENANCY_MAPS"

func TestMain(m *testing.M) {
	if claim, ok := os.LookupEnv(childEnv); ok {
		fmt.Print(mapAs(os.Args[1], claim))
		return
	}
	os.Exit(m.Run())
}

// mapAs is what the other process does. It prints "mapped" and the first byte that it found
// and left, or the code of the refusal.
func mapAs(socket, claim string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := data.Dial(ctx, data.Config{SocketPath: socket, Name: "another user"})
	if err != nil {
		return "no session: " + err.Error()
	}
	defer d.Close()
	m, err := d.Map(ctx, claim, data.ReadWrite)
	var refused *schemas.Error
	switch {
	case errors.As(err, &refused):
		return string(refused.Code)
	case err != nil:
		return err.Error()
	}
	b := m.Segments[0].Bytes
	found := b[0]
	b[0] = 'B'
	return fmt.Sprintf("mapped %q", found)
}

// runAs has another user of this machine map a claim.
func runAs(t *testing.T, uid uint32, program, socket, claim string) string {
	t.Helper()
	c := exec.Command(program, socket)
	c.Env = []string{childEnv + "=" + claim}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	var out, bad bytes.Buffer
	c.Stdout, c.Stderr = &out, &bad
	if err := c.Run(); err != nil {
		t.Fatalf("as user %d: %v %s", uid, err, bad.String())
	}
	return out.String()
}

// forEverybody is a copy of the test's own program that every user may run.
func forEverybody(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "isobar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "map")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	return program
}

// Users of this machine are their tenants on the data socket: each maps its own tenant's
// grants, none another's, and who is in no tenant does not come in at all.
func TestUsersOfThisMachine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: a process of another user cannot be started, and the data socket is tried by one user alone")
	}
	const blues, greens, nobodys = 54321, 54322, 54323
	program := forEverybody(t)
	log := &logged{}
	w := &world{log: log}
	n := nodetest.Start(t, recorded(log), nodetest.Set(func(c *node.Config) {
		c.Tenants = tenants()
		c.Tenants[0].UIDs, c.Tenants[1].UIDs = []uint32{blues}, []uint32{greens}
		// The folder above is the test's, and private; the one of the sockets is the node's affair.
		if err := os.Chmod(filepath.Dir(c.RuntimeDir), 0o711); err != nil {
			t.Fatal(err)
		}
	}))
	w.url = n.Info().URL
	if info, err := os.Stat(n.Config.RuntimeDir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("the folder of the sockets: %v, %v", info.Mode(), err)
	}
	blue := w.as(t, "blue-client")
	g := granted(t, blue)
	socket := g.Handle.DataSocket
	if got := runAs(t, nobodys, program, socket, g.Handle.Claim); !strings.HasPrefix(got, "no session") {
		t.Errorf("a user of no tenant: %s", got)
	}
	if got := runAs(t, greens, program, socket, g.Handle.Claim); got != string(schemas.CodeForbidden) {
		t.Errorf("green's user has blue's claim: %s", got)
	}
	// Neither of them used it up.
	if got := runAs(t, blues, program, socket, g.Handle.Claim); got != `mapped '\x00'` {
		t.Errorf("blue's user: %s", got)
	}
	if got := runAs(t, blues, program, socket, g.Handle.Claim); got != string(schemas.CodeStaleHandle) {
		t.Errorf("a claim is used twice: %s", got)
	}
	green := granted(t, w.as(t, "green-client"))
	if got := runAs(t, blues, program, socket, green.Handle.Claim); got != string(schemas.CodeForbidden) {
		t.Errorf("blue's user has green's claim: %s", got)
	}
	if got := runAs(t, greens, program, socket, green.Handle.Claim); got != `mapped '\x00'` {
		t.Errorf("green's user: %s", got)
	}
	if !strings.Contains(log.String(), fmt.Sprintf("uid %d is not allowed", nobodys)) {
		t.Error("the log does not say who was refused")
	}
	mustNotLog(t, log, g.Handle.Claim, green.Handle.Claim)
}

// granted is a small grant that outlives whoever maps it.
func granted(t *testing.T, c *client.Client) *schemas.AllocateReply {
	t.Helper()
	var g schemas.AllocateReply
	lease := int64(600)
	if code := call(t, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 2 * mib, LeaseSeconds: &lease}, &g); code != "" {
		t.Fatal(code)
	}
	return &g
}
