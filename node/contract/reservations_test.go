package contract

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

func TestAReservationEndsWithItsProcess(t *testing.T) {
	inBoth(t, func(c *caller) {
		cmd := exec.Command("cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			c.t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		pid := cmd.Process.Pid
		r := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 100 * mib, "class": "reservation", "pid": pid})
		c.want(r, "allocation.class", "reservation", "allocation.owner.pid", pid, "allocation.granted_bytes", 100*mib)
		if _, ok := r["handle"]; ok {
			c.t.Error("a reservation has a handle")
		}
		c.want(c.memory(), "reserved_memory", 100*mib, "used_memory", 100*mib)
		in.Close()
		cmd.Wait()
		e := c.await("deallocated", "allocation.test.gpu-0", of("allocation_id", text(r, "allocation_id")))
		c.want(e.data, "reason", "the process that it follows has ended")
		c.want(c.memory(), "reserved_memory", 0, "used_memory", 0)

		c.want(c.fails("INVALID_REQUEST", "allocate", obj{"device_id": "gpu-0", "size_bytes": 1, "class": "reservation", "pid": pid}), "field", "pid")
		c.want(c.fails("INVALID_REQUEST", "allocate", obj{"device_id": "gpu-0", "size_bytes": 1, "pid": os.Getpid()}), "field", "pid")
	})
}

// On RAM the kernel says what a tree uses: this process is far larger than what is
// promised for it.
func TestAReservationOnRAMCountsWhatTheKernelSays(t *testing.T) {
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=4GiB"))
	c := n.Client(t)
	ballast := make([]byte, 32*mib)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	var r schemas.AllocateReply
	if err := c.Call(t.Context(), schemas.ActionAllocate, obj{"device_id": "ram-0", "size_bytes": mib, "class": "reservation", "pid": os.Getpid()}, &r); err != nil {
		t.Fatal(err)
	}
	limit := time.Now().Add(30 * time.Second)
	for {
		var g schemas.GetAllocationReply
		if err := c.Call(t.Context(), schemas.ActionGetAllocation, obj{"allocation_id": r.AllocationID}, &g); err != nil {
			t.Fatal(err)
		}
		if g.Allocation.GrantedBytes > 32*mib {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("it counts %d bytes", g.Allocation.GrantedBytes)
		}
	}
	if ballast[0] != 1 {
		t.Fatal("the ballast is gone")
	}
}
