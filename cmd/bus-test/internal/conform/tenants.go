package conform

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// The tenants of conform's own node and their users, each a tenant and a role. The hash is
// cheap: it is asked for often.
const (
	tenantSecret     = "correct-horse-battery"
	tenantSecretHash = "$2a$04$xgms1ZBEslTcLSk.NkyEhekJ5tzd5Znjc2RYolh5oYw7QcE3vvDNq"
	blue, green      = "blue", "green"
	greenQuota       = 48 * mib
)

// roleOf is the role of a user, which its name ends with.
func roleOf(user string) schemas.Role {
	_, role, _ := strings.Cut(user, "-")
	return schemas.Role(role)
}

// tenantsJSON are the tenants as a node's configuration has them.
func tenantsJSON() []string {
	var out []string
	for _, t := range []string{blue, green} {
		var users []string
		for _, r := range []schemas.Role{schemas.RoleReader, schemas.RoleClient, schemas.RoleOperator} {
			users = append(users, fmt.Sprintf(`{"name":"%s-%s","role":"%s","password_hash":"%s"}`, t, r, r, tenantSecretHash))
		}
		out = append(out, fmt.Sprintf(`{"name":%q,"users":[%s]}`, t, strings.Join(users, ",")))
	}
	return out
}

// user is a caller on a node with tenants.
func (c caller) user(name string) caller {
	a := c.annexed("walled", map[string][]string{"tenants": tenantsJSON()})
	return caller{c.as(a, name, nats.UserInfo(name, tenantSecret), nats.CustomInboxPrefix("_INBOX_"+name)), c.f}
}

// denial waits for the server's word that the user may not do something on a subject.
func (w *world) denial(subject string) {
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		select {
		case err := <-w.denied:
			if strings.Contains(err.Error(), fmt.Sprintf("%q", subject)) {
				return
			}
		case <-t.C:
			fail("%s: the server did not refuse it", subject)
		}
	}
}

// refused gives a command that the server must not let through.
func (c caller) refused(subject string, in object) {
	inbox, err := c.nc.SubscribeSync(c.nc.NewInbox())
	if err != nil {
		fail("%v", err)
	}
	defer inbox.Unsubscribe()
	if err := c.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: inbox.Subject, Data: c.bytes(object{"data": in}), Header: nats.Header{"Content-Type": {c.f.mime}}}); err != nil {
		fail("%v", err)
	}
	c.denial(subject)
	if n, _, err := inbox.Pending(); err != nil || n > 0 {
		fail("%s is refused, and answered: %v", subject, err)
	}
}

// tenantChecks are of what each role may, and of what one tenant sees of another.
func (c caller) tenantChecks() []check {
	var out []check
	add := func(what string, run func()) { out = append(out, check{"tenancy/" + c.f.name + "/" + what, run}) }
	c.roleChecks(add)
	c.wallChecks(add)
	c.hiddenChecks(add)
	c.quotaChecks(add)
	return out
}

// roleChecks try every action as every role, on both of its subjects.
func (c caller) roleChecks(add func(string, func())) {
	for _, role := range []schemas.Role{schemas.RoleReader, schemas.RoleClient, schemas.RoleOperator} {
		user := blue + "-" + string(role)
		try := func(name, subject string, allowed bool) {
			if !allowed {
				add(user+"/"+name+" → refused by the server", func() { c.user(user).refused(subject, object{}) })
				return
			}
			add(user+"/"+name+" → answered", func() {
				u := c.user(user)
				// The shape of each answer is looked at elsewhere; here, that there is one.
				if got := u.raw(subject, "", u.bytes(object{"data": object{}}), nil); got.code == schemas.CodeForbidden || got.code == schemas.CodeUnauthorized {
					fail("answered %s", got)
				}
			})
		}
		for _, s := range schemas.All() {
			for _, a := range append([]schemas.Action{s.Action}, s.Aliases...) {
				try(string(a), schemas.CommandSubject(a), role.Allows(s.Role))
				try(string(a)+"-on-the-node's-subject", schemas.NodeCommandSubject(a, "walled"), role.Allows(s.Role))
			}
		}
		try("memory.command", schemas.AnyCommandSubject(), role == schemas.RoleOperator)
	}
}

// wallChecks try to come in by other ways than one's own.
func (c caller) wallChecks(add func(string, func())) {
	for name, options := range map[string][]nats.Option{
		"without-credentials":   {},
		"with-a-wrong-password": {nats.UserInfo("blue-client", "wrong")},
		"as-nobody":             {nats.UserInfo("nobody", tenantSecret)},
	} {
		add(name+" → not let in", func() {
			c.user("blue-client") // the node is there
			if nc, err := nats.Connect(c.annexes["walled"].node.URL, options...); err == nil {
				nc.Close()
				fail("it was let in")
			}
		})
	}
	for _, subject := range []string{schemas.TenantSubject(blue, "memory.get_status"), schemas.TenantSubject(green, "memory.get_status"), schemas.OperatorSubject(green, "memory.set_limits"),
		schemas.PressureSubject("walled", "gpu-0"), schemas.AllocationSubject("walled", "gpu-0"), "$SYS.REQ.SERVER.PING", "$JS.API.INFO", "_INBOX_blue-client.x"} {
		add("publishing-to-"+subject+" → refused by the server", func() { c.user("green-client").refused(subject, object{}) })
	}
	for _, subject := range []string{">", "memory.>", "isobar.>", "_INBOX.>", "_INBOX_blue-client.>", "_INBOX_green-operator.>", schemas.CommandSubject("*")} {
		add("listening-to-"+subject+" → refused by the server", func() {
			u := c.user("green-client")
			sub, err := u.nc.SubscribeSync(subject)
			if err != nil {
				fail("%v", err)
			}
			defer sub.Unsubscribe()
			u.denial(subject)
		})
	}
}

// treasure is what the blue tenant has that nobody else may find.
type treasure struct {
	c                            caller
	grant, request, ref, session string
	holds                        []byte
}

const treasureBytes = 64 << 10

const hiddenPurpose, hiddenModel = "buried-treasure", "buried-model"

func (c caller) treasure() treasure {
	b := c.user("blue-client")
	t := treasure{c: b, request: b.nextID(), holds: pattern(seed, treasureBytes)}
	g := b.do(schemas.ActionAllocate, object{"device_id": b.device, "size_bytes": treasureBytes, "purpose": hiddenPurpose}, id(t.request))
	t.grant, t.session = text(g, "allocation_id"), b.session.Session().ID
	m := b.maps(g, data.ReadWrite)
	fill(m, seed)
	b.unmaps(m)
	b.do(schemas.ActionLoadModel, object{"name": hiddenModel, "path": b.modelPath, "device_id": b.device, "wait_ms": waitFor})
	t.ref = text(b.do(schemas.ActionAcquireModel, object{"name": hiddenModel, "device_id": b.device, "lease_seconds": 60}), "reference_id")
	return t
}

// whole wants the treasure to be as it was, and gives it up.
func (t treasure) whole() {
	t.c.secondSees(t.grant, t.holds)
	want(t.c.do(schemas.ActionGetModelInfo, object{"name": hiddenModel}), "models.0.state", "sealed", "models.0.name", hiddenModel)
	t.c.do(schemas.ActionReleaseModel, object{"reference_id": t.ref})
	t.c.do(schemas.ActionUnloadModel, object{"name": hiddenModel, "force": true, "wait_ms": waitFor})
}

// hiddenChecks: what one tenant has does not exist for another.
func (c caller) hiddenChecks(add func(string, func())) {
	for _, role := range []schemas.Role{schemas.RoleReader, schemas.RoleClient} {
		user := green + "-" + string(role)
		for _, x := range []struct {
			action schemas.Action
			in     func(t treasure) object
			code   schemas.Code
		}{
			{schemas.ActionGetAllocation, func(t treasure) object { return object{"allocation_id": t.grant, "include_history": true} }, schemas.CodeAllocationNotFound},
			{schemas.ActionGetHandle, func(t treasure) object { return object{"allocation_id": t.grant} }, schemas.CodeAllocationNotFound},
			{schemas.ActionGetHandle, func(treasure) object { return object{"model_name": hiddenModel, "device_id": "gpu-0"} }, schemas.CodeModelNotFound},
			{schemas.ActionDeallocate, func(t treasure) object { return object{"allocation_id": t.grant, "force": true} }, schemas.CodeAllocationNotFound},
			{schemas.ActionRenew, func(t treasure) object { return object{"allocation_ids": []any{t.grant}, "lease_seconds": 10} }, schemas.CodeAllocationNotFound},
			{schemas.ActionClear, func(t treasure) object { return object{"allocation_id": t.grant} }, schemas.CodeAllocationNotFound},
			{schemas.ActionTransfer, func(t treasure) object { return object{"allocation_id": t.grant, "target_device_id": "ram-0"} }, schemas.CodeAllocationNotFound},
			{schemas.ActionGetOperation, func(t treasure) object { return object{"request_id": t.request} }, schemas.CodeOperationNotFound},
			{schemas.ActionCancelOperation, func(t treasure) object { return object{"request_id": t.request} }, schemas.CodeOperationNotFound},
			{schemas.ActionGetModelInfo, func(treasure) object { return object{"name": hiddenModel, "include_tensors": true} }, schemas.CodeModelNotFound},
			{schemas.ActionUnloadModel, func(treasure) object { return object{"name": hiddenModel, "force": true} }, schemas.CodeModelNotFound},
			{schemas.ActionAcquireModel, func(treasure) object { return object{"name": hiddenModel, "device_id": "gpu-0", "lease_seconds": 10} }, schemas.CodeModelNotFound},
			{schemas.ActionLoadModel, func(treasure) object { return object{"name": hiddenModel, "device_id": "gpu-0"} }, schemas.CodeModelNotFound},
			{schemas.ActionReleaseModel, func(t treasure) object { return object{"reference_id": t.ref} }, schemas.CodeModelNotFound},
		} {
			spec, _ := schemas.Lookup(x.action)
			if !role.Allows(spec.Role) {
				continue
			}
			what := "another-tenant's"
			if x.code == schemas.CodeModelNotFound {
				what = "another-tenant's-model"
			}
			add(user+"/"+string(x.action)+"-of-"+what+" → "+string(x.code), func() {
				t := c.treasure()
				c.user(user).ask(x.action, x.in(t)).expect(x.code)
				t.whole()
			})
		}
	}
	for _, end := range []string{"source", "target"} {
		add("green-client/copy-with-another-tenant's-"+end+" → ALLOCATION_NOT_FOUND", func() {
			t, u := c.treasure(), c.user("green-client")
			in := object{"source_allocation_id": text(u.grant(u.device, mib), "allocation_id"), "target_allocation_id": text(u.grant(u.device, mib), "allocation_id")}
			u.ask(schemas.ActionCopy, with(in, end+"_allocation_id", t.grant)).expect(schemas.CodeAllocationNotFound)
			t.whole()
		})
	}
	for _, s := range schemas.All() {
		if s.Changing || required(s) != "" {
			continue
		}
		add("green-client/"+string(s.Action)+"-tells-nothing-of-another-tenant", func() {
			t, u := c.treasure(), c.user("green-client")
			got, err := json.Marshal(u.do(s.Action, object{}))
			if err != nil {
				fail("%v", err)
			}
			for _, word := range []string{t.grant, t.ref, t.request, hiddenPurpose, hiddenModel, `"` + blue + `"`, t.session} {
				if strings.Contains(string(got), word) {
					fail("%q is in %s", word, got)
				}
			}
			t.whole()
		})
	}
	add("green-client/get_allocations-of-another-tenant → FORBIDDEN", func() {
		c.user("green-client").ask(schemas.ActionGetAllocations, object{"tenant": blue}).expect(schemas.CodeForbidden)
	})
	add("green-operator/get_allocations-of-another-tenant → listed", func() {
		t := c.treasure()
		want(c.user("green-operator").do(schemas.ActionGetAllocations, object{"tenant": blue, "purpose": hiddenPurpose}), "allocations.0.allocation_id", t.grant, "allocations.0.owner.tenant", blue)
		t.whole()
	})
	add("green-client/another-tenant's-request_id-is-not-its-own", func() {
		t, u := c.treasure(), c.user("green-client")
		got := u.do(schemas.ActionAllocate, object{"device_id": u.device, "size_bytes": mib, "purpose": hiddenPurpose}, id(t.request))
		want(got, "replayed", nil)
		if text(got, "allocation_id") == t.grant {
			fail("the other tenant's grant")
		}
		t.whole()
	})
	add("green-client/hears-no-event-of-another-tenant's", func() {
		green, operator, reader := c.user("green-client"), c.user("green-operator"), c.user("blue-reader")
		t := c.treasure()
		about := func(d object) bool { return text(d, "allocation_id") == t.grant }
		reader.await(schemas.EventAllocated, "events.allocation", about)
		operator.await(schemas.EventAllocated, "events.allocation", about)
		t.whole()
		// What came before it has come when this has.
		own := text(green.grant(green.device, mib), "allocation_id")
		green.await(schemas.EventAllocated, "events.allocation", of("allocation_id", own))
		green.seen.mu.Lock()
		defer green.seen.mu.Unlock()
		for _, e := range green.seen.list {
			said := fmt.Sprint(e.data)
			for _, word := range []string{t.grant, hiddenPurpose, hiddenModel, t.session, "tenant:" + blue} {
				// Its own grant of this purpose, for the check above, is no other's.
				if strings.Contains(said, word) && text(e.data, "tenant") != "green" {
					fail("%s %s: %s", e.subject, e.kind, said)
				}
			}
		}
	})
	add("secrets-and-claims-are-in-no-log", func() {
		b := c.user("blue-client")
		g := b.grant(b.device, mib)
		log, err := os.ReadFile(filepath.Join(b.dir, "node.log"))
		if err != nil || len(log) == 0 {
			fail("the node's log: %d bytes, %v", len(log), err)
		}
		for _, secret := range []string{tenantSecret, tenantSecretHash, text(g, "handle.claim")} {
			if strings.Contains(string(log), secret) {
				fail("%.6q… is in the log", secret)
			}
		}
	})
}

// quotaChecks are of a tenant's quota: it is held at the grant, and its pressure is told to whose
// it is.
func (c caller) quotaChecks(add func(string, func())) {
	limited := func() (u, o caller) {
		u, o = c.user("green-client"), c.user("green-operator")
		o.do(schemas.ActionSetLimits, object{"device_id": o.device, "tenant": object{"name": green, "hard_bytes": greenQuota}})
		return u, o
	}
	free := func(o caller) {
		o.do(schemas.ActionSetLimits, object{"device_id": o.device, "tenant": object{"name": green, "hard_bytes": 0}})
	}
	add("quota/more-than-the-hard-quota → QUOTA_EXCEEDED", func() {
		u, o := limited()
		defer free(o)
		before := u.account()
		u.ask(schemas.ActionAllocate, object{"device_id": u.device, "size_bytes": greenQuota + mib}).expect(schemas.CodeQuotaExceeded)
		u.same(before)
	})
	add("quota/the-rest-of-it-is-granted-and-no-more", func() {
		u, o := limited()
		defer free(o)
		u.grant(u.device, greenQuota/2)
		u.ask(schemas.ActionAllocate, object{"device_id": u.device, "size_bytes": greenQuota*3/4 - 2*mib, "timeout_seconds": 0}).expect(schemas.CodeQuotaExceeded)
		u.grant(u.device, greenQuota/2)
	})
	add("quota/binds-nobody-else", func() {
		_, o := limited()
		defer free(o)
		b := c.user("blue-client")
		b.grant(b.device, greenQuota+16*mib)
	})
	add("quota/its-pressure-is-told-to-its-tenant-and-operators-alone", func() {
		u, o := limited()
		defer free(o)
		b := c.user("blue-operator")
		g := u.grant(u.device, greenQuota)
		for _, who := range []caller{u, b} {
			e := who.await(schemas.EventPressureChanged, "events.tenant_pressure."+green, func(d object) bool {
				return text(d, "pressure_level") == "critical" && num(d, "total_memory") == greenQuota
			})
			want(e.data, "tenant", green)
		}
		want(u.do(schemas.ActionGetPressure, object{"device_id": u.device}), "tenant_pressure.0.tenant", green, "tenant_pressure.0.pressure_level", "critical")
		if l := list(c.user("blue-client").do(schemas.ActionGetPressure, object{"device_id": u.device}), "tenant_pressure"); len(l) > 0 {
			fail("the other tenant is told %v", l)
		}
		u.release(g)
	})
	add("green-client/clear-of-a-device-releases-its-own-alone", func() {
		t, u := c.treasure(), c.user("green-client")
		id := text(u.grant(u.device, mib), "allocation_id")
		u.do(schemas.ActionClear, object{"device_id": u.device, "confirm": true, "wait_ms": waitFor})
		u.ask(schemas.ActionGetAllocation, object{"allocation_id": id}).expect(schemas.CodeAllocationNotFound)
		t.whole()
	})
	add("green-operator/clear-of-a-device-releases-everybody's", func() {
		o, b := c.user("green-operator"), c.user("blue-client")
		id := text(b.grant(b.device, mib, "class", "state"), "allocation_id")
		o.do(schemas.ActionClear, object{"device_id": o.device, "confirm": true, "wait_ms": waitFor})
		b.ask(schemas.ActionGetAllocation, object{"allocation_id": id}).expect(schemas.CodeAllocationNotFound)
		want(o.memory(o.device), "used_memory", 0)
	})
	add("quota/cleanup-releases-the-tenant's-own-alone", func() {
		t, u := c.treasure(), c.user("green-client")
		g := u.grant(u.device, 4*mib)
		want(u.do(schemas.ActionCleanup, object{"confirm": true, "wait_ms": waitFor}), "freed_bytes", num(g, "allocation.granted_bytes"), "models_unloaded", []any{})
		t.whole()
	})
}
