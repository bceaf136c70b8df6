package conform

import (
	"fmt"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// The two nodes on one server.
const nodeOne, nodeTwo = "one", "two"

// pair is a caller on the server of two nodes, each with a gpu-0; either may answer it.
func (c caller) pair() caller {
	one := c.annexed(nodeOne, map[string][]string{"jetstream": {"false"}})
	two := c.annexed(nodeTwo, map[string][]string{"jetstream": {"false"}, "nats_url": {one.node.URL}})
	p := caller{c.as(one, ""), c.f}
	q := caller{c.as(two, ""), c.f}
	if p.node != "" {
		p.node, q.node = "", ""
		for _, n := range []string{nodeOne, nodeTwo} {
			p.eventually(func() string {
				got := p.askOn(schemas.NodeCommandSubject(schemas.ActionDeallocate, n), schemas.ActionDeallocate, object{"allocation_id": "nobody.x"})
				return differs(fmt.Sprint(got.details["nodes"]), "[one two]")
			})
		}
	}
	return p
}

// nodeChecks are of two nodes on one server: each is reached through any, whoever is named.
func (c caller) nodeChecks() []check {
	var out []check
	add := func(what string, run func()) { out = append(out, check{"nodes/" + c.f.name + "/" + what, run}) }
	add("allocate-that-names-no-node → NODE_REQUIRED with the nodes", func() {
		got := c.pair().ask(schemas.ActionAllocate, object{"size_bytes": mib}).expect(schemas.CodeNodeRequired)
		want(got.details, "nodes", []any{nodeOne, nodeTwo})
	})
	add("load_model-that-names-no-node → NODE_REQUIRED with the nodes", func() {
		p := c.pair()
		got := p.ask(schemas.ActionLoadModel, object{"name": modelName, "path": p.modelPath, "device_id": "gpu-0"}).expect(schemas.CodeNodeRequired)
		want(got.details, "nodes", []any{nodeOne, nodeTwo})
	})
	for _, name := range []string{nodeOne, nodeTwo} {
		socket := func() string { return c.annexes[name].node.DataSocket }
		by := map[string]func(p caller, in object) object{
			"by-its-device": func(p caller, in object) object {
				return p.do(schemas.ActionAllocate, with(in, "device_id", name+"/gpu-0"))
			},
			"by-its-subject": func(p caller, in object) object {
				return p.askOn(schemas.NodeCommandSubject(schemas.ActionAllocate, name), schemas.ActionAllocate, with(in, "device_id", "gpu-0")).expect("").data
			},
		}
		for how, ask := range by {
			add("allocate-on-"+name+"-"+how, func() {
				g := ask(c.pair(), object{"size_bytes": 2 * mib})
				want(g, "allocation.node", name, "handle.node", name, "handle.data_socket", socket())
			})
		}
		add("an-id-of-"+name+"-is-found-whoever-is-asked", func() {
			p := c.pair()
			id := text(by["by-its-device"](p, object{"size_bytes": mib}), "allocation_id")
			for _, subject := range []string{schemas.CommandSubject(schemas.ActionGetAllocation), schemas.NodeCommandSubject(schemas.ActionGetAllocation, nodeOne), schemas.NodeCommandSubject(schemas.ActionGetAllocation, nodeTwo)} {
				for _, written := range []string{id, name + "." + id} {
					want(p.askOn(subject, schemas.ActionGetAllocation, object{"allocation_id": written}).expect("").data, "allocation.node", name)
				}
			}
		})
		add("a-claim-of-"+name+"-passed-on-by-the-other-opens-its-memory", func() {
			p := c.pair()
			id := text(by["by-its-device"](p, object{"size_bytes": mib}), "allocation_id")
			other := map[string]string{nodeOne: nodeTwo, nodeTwo: nodeOne}[name]
			h := p.askOn(schemas.NodeCommandSubject(schemas.ActionGetHandle, other), schemas.ActionGetHandle, object{"allocation_id": id}).expect("").data
			d, err := data.Dial(c.ctx, data.Config{SocketPath: text(h, "handle.data_socket"), Name: "bus-test conform"})
			if err != nil {
				fail("%v", err)
			}
			defer d.Close()
			m, err := d.Map(c.ctx, text(h, "handle.claim"), data.ReadWrite)
			if err != nil || m.SizeBytes != mib {
				fail("mapping: %v", err)
			}
			if err := d.Unmap(c.ctx, m); err != nil {
				fail("%v", err)
			}
			freed := p.askOn(schemas.NodeCommandSubject(schemas.ActionDeallocate, other), schemas.ActionDeallocate, object{"allocation_id": id}).expect("").data
			want(freed, "confirmed", true)
			p.ask(schemas.ActionGetAllocation, object{"allocation_id": id}).expect(schemas.CodeAllocationNotFound)
		})
		add("an-operation-of-"+name+"-is-followed-and-cancelled-by-the-other", func() {
			p := c.pair()
			other := map[string]string{nodeOne: nodeTwo, nodeTwo: nodeOne}[name]
			on := func(a schemas.Action, in object) object {
				return p.askOn(schemas.NodeCommandSubject(a, other), a, in).expect("").data
			}
			free := num(p.do(schemas.ActionGetStatus, object{"device_id": name + "/gpu-0", "include_allocations": false}), "memory_info.largest_grantable_bytes")
			by["by-its-device"](p, object{"size_bytes": free})
			w := p.ask(schemas.ActionAllocate, object{"device_id": name + "/gpu-0", "size_bytes": 4 * mib, "wait_ms": 0, "timeout_seconds": 60}).expect("").data
			op := text(w, "operation_id")
			want(on(schemas.ActionGetOperation, object{"operation_id": op}), "operation.status", "queued", "operation.operation_id", op)
			want(on(schemas.ActionCancelOperation, object{"operation_id": op}), "operation.status", "cancelled")
			want(on(schemas.ActionGetOperation, object{"operation_id": op}), "operation.status", "cancelled")
		})
	}
	add("a-node-that-is-not-there → NO_NODE", func() {
		c.pair().ask(schemas.ActionGetAllocation, object{"allocation_id": "three." + nobody}).expect(schemas.CodeNoNode)
	})
	add("an-id-of-nobody → ALLOCATION_NOT_FOUND", func() {
		c.pair().ask(schemas.ActionGetAllocation, object{"allocation_id": nobody}).expect(schemas.CodeAllocationNotFound)
	})
	return out
}
