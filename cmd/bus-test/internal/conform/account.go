package conform

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/consumer"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// account is what a command that changes nothing leaves as it is.
type account struct{ grants, models, queue, used, limit int64 }

func (c caller) account() account {
	d := c.do(schemas.ActionGetStatus, object{"include_allocations": false})
	return account{num(d, "usage_stats.allocation_count"), num(d, "usage_stats.model_count"), num(d, "usage_stats.queue_length"),
		num(d, "memory_info.used_memory") - num(d, "memory_info.foreign_memory") - num(d, "memory_info.revoking_memory"), num(d, "memory_info.total_memory")}
}

// same wants the account to be what it was.
func (c caller) same(before account) {
	if after := c.account(); after != before {
		fail("grants, models, queue, used bytes and limit were %v and are %v", before, after)
	}
}

// memory is a device's memory_info.
func (c caller) memory(device string) object {
	m, _ := c.do(schemas.ActionGetStatus, object{"device_id": device, "include_allocations": false})["memory_info"].(object)
	return m
}

// grant allocates on a device; more are pairs of names and values.
func (c caller) grant(device string, bytes int64, more ...any) object {
	in := object{"device_id": device, "size_bytes": bytes}
	for i := 0; i < len(more); i += 2 {
		in[more[i].(string)] = more[i+1]
	}
	return c.do(schemas.ActionAllocate, in)
}

// release gives a grant back, and waits until nobody else can touch its bytes.
func (c caller) release(grant object) object {
	return c.do(schemas.ActionDeallocate, object{"allocation_id": text(grant, "allocation_id")})
}

// maps redeems a claim in this process.
func (c caller) maps(reply object, mode data.Mode) *data.Mapping {
	ctx, stop := context.WithTimeout(c.ctx, patience)
	defer stop()
	m, err := c.session.Map(ctx, text(reply, "handle.claim"), mode)
	if err != nil {
		fail("mapping: %v", err)
	}
	c.mappings = append(c.mappings, m)
	return m
}

// unmaps lets a mapping go.
func (c caller) unmaps(m *data.Mapping) {
	c.mappings = slices.DeleteFunc(c.mappings, func(x *data.Mapping) bool { return x == m })
	if err := c.session.Unmap(c.ctx, m); err != nil {
		fail("unmapping: %v", err)
	}
}

// handle is a fresh claim on a grant.
func (c caller) handle(allocation string) object {
	return c.do(schemas.ActionGetHandle, object{"allocation_id": allocation})
}

// fill writes the pattern of a seed over a mapping.
func fill(m *data.Mapping, seed uint64) {
	off := int64(0)
	for _, s := range m.Segments {
		consumer.Pattern(seed, off, s.Bytes)
		off += int64(len(s.Bytes))
	}
}

// pattern is what a grant that was filled holds.
func pattern(seed uint64, bytes int64) []byte {
	b := make([]byte, bytes)
	consumer.Pattern(seed, 0, b)
	return b
}

// secondSees wants a second process that maps a grant to find these bytes.
func (c caller) secondSees(allocation string, bytes []byte) {
	if err := c.second.View(text(c.handle(allocation), "handle.claim")); err != nil {
		fail("the second process: %v", err)
	}
	c.secondSum(allocation, bytes)
}

// secondSum wants the second process, which has mapped a grant, to find these bytes in it;
// then it lets the grant go.
func (c caller) secondSum(allocation string, bytes []byte) {
	sum, err := c.second.Sum(allocation)
	if uerr := c.second.Unmap(allocation); err == nil {
		err = uerr
	}
	if err != nil {
		fail("the second process: %v", err)
	}
	if want := consumer.Sum(bytes); sum != want {
		fail("the second process has the checksum %.16s, not %.16s", sum, want)
	}
}

// blocks are the bytes that the kernel has given to the node's memory: the blocks of all its
// memfds, each counted once.
func (w *world) blocks() int64 {
	dir := fmt.Sprintf("/proc/%d/fd", w.pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		fail("the node's open files: %v (run as the node's user)", err)
	}
	seen := map[uint64]bool{}
	total := int64(0)
	for _, fd := range fds {
		path := filepath.Join(dir, fd.Name())
		to, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(to, "/memfd:") {
			continue // closed meanwhile, or something else
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && !seen[st.Ino] {
			seen[st.Ino] = true
			total += st.Blocks * 512
		}
	}
	return total
}

// discovery wants the service to show every action, as `nats micro info` asks.
func (w *world) discovery() []check {
	var endpoints map[string]object
	ask := func() map[string]object {
		if endpoints != nil {
			return endpoints
		}
		m, err := w.nc.Request("$SRV.INFO.memory", nil, patience)
		if err != nil {
			fail("%v", err)
		}
		v, err := decodeJSON(m.Data)
		if err != nil {
			fail("%v", err)
		}
		endpoints = map[string]object{}
		for _, e := range list(v, "endpoints") {
			o, _ := e.(object)
			endpoints[text(o, "subject")] = o
		}
		return endpoints
	}
	out := []check{{"discovery/ping", func() {
		m, err := w.nc.Request("$SRV.PING.memory", nil, patience)
		if err != nil || !json.Valid(m.Data) {
			fail("%v", err)
		}
	}}}
	for _, s := range schemas.All() {
		out = append(out, check{"discovery/shows-" + string(s.Action), func() {
			for _, subject := range []string{schemas.CommandSubject(s.Action), schemas.NodeCommandSubject(s.Action, w.node)} {
				e, ok := ask()[subject]
				if !ok {
					fail("no endpoint %s", subject)
				}
				want(e, "metadata.description", s.Summary)
			}
		}}, check{"discovery/shows-the-schemas-of-" + string(s.Action), func() {
			e := ask()[schemas.CommandSubject(s.Action)]
			want(e, "metadata.request", jsonschema.Request(s, nil).Compact(), "metadata.reply", jsonschema.Reply(s, nil).Compact())
			for _, text := range []string{text(e, "metadata.request"), text(e, "metadata.reply")} {
				if _, err := parseSchema(text); err != nil {
					fail("%v", err)
				}
			}
		}})
	}
	return out
}
