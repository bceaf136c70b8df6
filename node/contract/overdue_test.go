package contract

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
)

// stubborn names, for the process below, the data socket and the claim that it maps.
const stubborn = "ISOBAR_TEST_STUBBORN"

// TestAStubbornProcess is a process of the tests below: it maps a grant and does not care
// for revocations, and with deaf not for SIGTERM either, until its standard input ends.
func TestAStubbornProcess(t *testing.T) {
	what := strings.Fields(os.Getenv(stubborn))
	if len(what) == 0 {
		return // not one of those
	}
	if what[2] == "deaf" {
		signal.Ignore(syscall.SIGTERM)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := data.Dial(ctx, data.Config{SocketPath: what[0], OnRevoke: func(r data.Revocation) {
		fmt.Println("revoked:", r.Reason)
		select {}
	}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Map(ctx, what[1], data.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	m.Segments[0].Bytes[0] = 1
	fmt.Println("mapped")
	_, _ = io.Copy(io.Discard, os.Stdin) // until it ends, however
	os.Exit(0)                           // as any process may: without a word
}

// holder is a stubborn process.
type holder struct {
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
}

// hold has a process of its own map a grant and keep it.
func (c *caller) hold(grant obj, ears string) *holder {
	c.t.Helper()
	h := &holder{cmd: exec.Command("/proc/self/exe", "-test.run=^TestAStubbornProcess$")}
	h.cmd.Env = append(os.Environ(), stubborn+"="+c.n.Info().DataSocket+" "+text(grant, "handle.claim")+" "+ears)
	in, err := h.cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	h.stdin, h.lines = in, bufio.NewScanner(out)
	if err := h.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { in.Close(); h.cmd.Process.Kill(); h.wait() })
	c.says(h, "mapped")
	return h
}

func (c *caller) says(h *holder, what string) {
	c.t.Helper()
	if !h.lines.Scan() || !strings.HasPrefix(h.lines.Text(), what) {
		c.t.Fatalf("the process says %q, not %q: %v", h.lines.Text(), what, h.lines.Err())
	}
}

// wait returns how the process ended; it may be called again.
func (h *holder) wait() error {
	if h.cmd.ProcessState == nil {
		return h.cmd.Wait()
	}
	return nil
}

// takeBack revokes a grant of 20 MiB and waits until its deadline is over.
func (c *caller) takeBack(h *holder, grant obj) {
	c.t.Helper()
	gone := c.do("deallocate", obj{"allocation_id": text(grant, "allocation_id"), "force": true, "deadline_ms": 50, "wait_ms": 15_000})
	c.want(gone, "confirmed", false, "freed_bytes", 0, "zombie_bytes", 20*mib)
	if h != nil {
		c.says(h, "revoked: deallocated by its client")
		e := c.await("zombie", "allocation", of("allocation_id", text(grant, "allocation_id")))
		c.want(e.data, "pid", h.cmd.Process.Pid)
	}
}

func overdue(p ledger.Overdue) nodetest.Option {
	return func(c *node.Config, _ *node.Hooks) {
		c.RevokeOverdue, c.RevokeEndGrace = p, 10*time.Millisecond
	}
}

// By default nobody suffers for it but the figures.
func TestOverdueBytesAreKept(t *testing.T) {
	inBoth(t, func(c *caller) {
		r := c.grant(20*mib, "persistent", true)
		h := c.hold(r, "hears")
		c.takeBack(h, r)
		c.want(c.memory(), "zombie_memory", 20*mib, "used_memory", 20*mib)
		c.release(c.grant(mib))
		h.stdin.Close()
		if err := h.wait(); err != nil {
			c.t.Errorf("the process was left alone, and ended with %v", err)
		}
		c.await("confirmed", "allocation", of("allocation_id", text(r, "allocation_id")))
		c.want(c.memory(), "zombie_memory", 0)
	}, overdue(ledger.OverdueKeep))
}

// With refuse the tenant gets no more of the device until the bytes are back.
func TestOverdueBytesRefuseMore(t *testing.T) {
	inBoth(t, func(c *caller) {
		r := c.grant(20*mib, "persistent", true)
		h := c.hold(r, "hears")
		c.takeBack(h, r)
		in := obj{"device_id": "gpu-0", "size_bytes": mib}
		a := c.ask("allocate", in)
		c.want(c.refused("ALLOCATION_IN_USE", "a grant to who holds overdue bytes", a), "revocation", "overdue", "zombie_bytes", 20*mib,
			"allocation_ids.0", text(r, "allocation_id"), "pids.0", h.cmd.Process.Pid, "tenant", "default", "device_id", "gpu-0")
		if !strings.Contains(a.text, "end the processes") {
			c.t.Errorf("%q does not say what to do", a.text)
		}
		in["dry_run"] = true
		c.want(c.do("allocate", in), "plan.outcome", "refused")
		h.stdin.Close()
		if err := h.wait(); err != nil {
			c.t.Error(err)
		}
		c.await("confirmed", "allocation", of("allocation_id", text(r, "allocation_id")))
		c.release(c.grant(mib))
	}, overdue(ledger.OverdueRefuse))
}

// With end the process is told to end, and killed if it does not; the events say so.
func TestOverdueBytesEndTheProcess(t *testing.T) {
	for _, x := range []struct {
		ears string
		by   syscall.Signal
		last string
	}{{"hears", syscall.SIGTERM, "SIGTERM"}, {"deaf", syscall.SIGKILL, "SIGKILL"}} {
		t.Run(x.ears, func(t *testing.T) {
			inBoth(t, func(c *caller) {
				r := c.grant(20*mib, "persistent", true)
				h := c.hold(r, x.ears)
				c.takeBack(h, r)
				err := h.wait()
				if s, ok := h.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != x.by {
					c.t.Errorf("the process ended with %v, not by %v", err, x.by)
				}
				e := c.await("zombie", "allocation", func(d obj) bool { return strings.HasSuffix(text(d, "reason"), "is sent "+x.last) })
				c.want(e.data, "allocation_id", text(r, "allocation_id"), "pid", h.cmd.Process.Pid)
				c.await("confirmed", "allocation", of("allocation_id", text(r, "allocation_id")))
				c.want(c.memory(), "zombie_memory", 0, "used_memory", 0)
			}, overdue(ledger.OverdueEnd), nodetest.Set(func(c *node.Config) {
				if x.by == syscall.SIGTERM {
					c.RevokeEndGrace = time.Hour
				}
			}))
		})
	}
}

// The node does not end itself, though a program that runs it may be its own client.
func TestTheNodeIsNotEnded(t *testing.T) {
	inBoth(t, func(c *caller) {
		hold := make(chan struct{})
		d := c.session(func(data.Revocation) { <-hold })
		r := c.grant(20*mib, "persistent", true)
		c.maps(d, r["handle"], data.ReadWrite)
		c.takeBack(nil, r)
		c.await("zombie", "allocation", func(d obj) bool {
			return strings.HasSuffix(text(d, "reason"), "cannot be ended: it is the node itself")
		})
		close(hold)
		c.await("confirmed", "allocation", of("allocation_id", text(r, "allocation_id")))
	}, overdue(ledger.OverdueEnd))
}
