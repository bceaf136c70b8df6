package tenancy

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

func asError(err error, to **schemas.Error) bool { return errors.As(err, to) }

// Every role gets an answer to the actions that are its own, on both of their subjects, and
// a refusal to all others at once.
func TestEveryActionOfEveryRole(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		for user, role := range users {
			c := w.as(t, user)
			for _, s := range schemas.All() {
				for _, a := range append([]schemas.Action{s.Action}, s.Aliases...) {
					for _, at := range []string{"", "test"} {
						code := call(t, c, a, map[string]any{}, nil, client.WithNode(at))
						if forbidden := code == schemas.CodeForbidden; forbidden == role.Allows(s.Role) {
							t.Errorf("%s asks for %s on node %q: %q", user, a, at, code)
						}
					}
				}
			}
			code := call(t, c, schemas.ActionCommand, map[string]any{}, nil)
			if forbidden := code == schemas.CodeForbidden; forbidden == (role == schemas.RoleOperator) {
				t.Errorf("%s uses memory.command: %q", user, code)
			}
		}
	})
}

// Nobody comes in without credentials, with another's inbox, or by a subject that is not
// its own.
func TestWhoMayNotComeIn(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		for _, o := range []client.Options{{}, {Username: "blue-client", Password: "wrong"}, {Username: "nobody", Password: secret}} {
			o.URL = w.url
			if c, err := client.Connect(o); err == nil {
				c.Close()
				t.Errorf("%q was let in", o.Username)
			}
		}
		// The common inbox is nobody's, and another's neither.
		for _, inbox := range []string{"", accounts.InboxPrefix("green-client"), accounts.InboxPrefix("blue-reader")} {
			c, err := client.Connect(client.Options{URL: w.url, Username: "blue-client", Password: secret, InboxPrefix: inbox, Attempts: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if code := call(t, c, schemas.ActionListDevices, nil, nil); code != schemas.CodeForbidden {
				t.Errorf("with the inbox %q: %q", inbox, code)
			}
		}
		// Subjects of the node's own account mean nothing in a tenant's.
		nc := w.as(t, "blue-client").Conn()
		denied := make(chan error, 16)
		nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err })
		for _, subject := range []string{schemas.TenantSubject("green", "memory.get_status"), schemas.OperatorSubject("blue", "memory.set_limits"),
			schemas.PressureSubject("test", "gpu-0"), "_R_.x", "$SYS.REQ.SERVER.PING", "$JS.API.INFO"} {
			if err := nc.Publish(subject, nil); err != nil {
				t.Fatal(err)
			}
			if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", subject, err)
			}
		}
		for _, subject := range []string{">", "memory.>", "isobar.>", "_INBOX.>", accounts.InboxPrefix("blue-reader") + ".>"} {
			if _, err := nc.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
			if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("listening to %s: %v", subject, err)
			}
		}
	})
}

// What one tenant has does not exist for another: ids, models' names, figures.
func TestAnotherTenantsThingsDoNotExist(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		blue, green, operator := w.as(t, "blue-client"), w.as(t, "green-client"), w.as(t, "blue-operator")
		var g schemas.AllocateReply
		if code := call(t, blue, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 32 * mib, Purpose: "hidden"}, &g, client.WithRequestID("same")); code != "" {
			t.Fatal(code)
		}
		if g.Allocation.Owner.Tenant != "blue" || g.Allocation.Owner.User != "blue-client" {
			t.Fatalf("granted to %+v", g.Allocation.Owner)
		}
		id := g.AllocationID
		for action, in := range map[schemas.Action]any{
			schemas.ActionGetAllocation: &schemas.GetAllocationRequest{AllocationID: id},
			schemas.ActionGetHandle:     &schemas.GetHandleRequest{AllocationID: id},
			schemas.ActionDeallocate:    &schemas.DeallocateRequest{AllocationID: id, Force: true},
			schemas.ActionRenew:         &schemas.RenewRequest{AllocationIDs: []string{id}, LeaseSeconds: 10},
		} {
			if code := call(t, green, action, in, nil); code != schemas.CodeAllocationNotFound {
				t.Errorf("green gets %q to %s of blue's grant", code, action)
			}
		}
		if code := call(t, green, schemas.ActionGetOperation, map[string]any{"request_id": "same"}, nil); code != schemas.CodeOperationNotFound {
			t.Errorf("green finds blue's operation: %q", code)
		}
		// The same request_id is another one of another tenant.
		var other schemas.AllocateReply
		if code := call(t, green, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 16 * mib}, &other, client.WithRequestID("same")); code != "" || other.Replayed {
			t.Errorf("green's own request: %q, replayed %v", code, other.Replayed)
		}
		for _, a := range []schemas.Action{schemas.ActionGetStatus, schemas.ActionGetUsage, schemas.ActionGetAllocations, schemas.ActionGetPressure, schemas.ActionGetQueue, schemas.ActionGetModelInfo,
			schemas.ActionAnalytics, schemas.ActionOptimizationRecs, schemas.ActionModelStatus} {
			var raw json.RawMessage
			if code := call(t, green, a, nil, &raw); code != "" {
				t.Fatalf("%s: %s", a, code)
			}
			if text := string(raw); strings.Contains(text, id) || strings.Contains(text, "hidden") || strings.Contains(text, "blue") {
				t.Errorf("%s shows green of blue's: %s", a, text)
			}
		}
		if code := call(t, green, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{Tenant: "blue"}, nil); code != schemas.CodeForbidden {
			t.Errorf("green lists blue's grants: %q", code)
		}
		var list schemas.GetAllocationsReply
		if code := call(t, operator, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{Tenant: "green"}, &list); code != "" || len(list.Allocations) != 1 {
			t.Errorf("an operator lists green's grants: %q, %d", code, len(list.Allocations))
		}
		// The configured quota is in force, and its pressure shown to whose it is.
		if code := call(t, green, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 600 * mib}, nil); code != schemas.CodeQuotaExceeded {
			t.Errorf("past its quota green gets %q", code)
		}
		var p schemas.GetPressureReply
		if call(t, green, schemas.ActionGetPressure, nil, &p); len(p.TenantPressure) != 1 || p.TenantPressure[0].Tenant != "green" || p.TenantPressure[0].TotalMemory != 512*mib {
			t.Errorf("green's pressure: %+v", p.TenantPressure)
		}
		p = schemas.GetPressureReply{}
		if call(t, blue, schemas.ActionGetPressure, nil, &p); len(p.TenantPressure) != 0 {
			t.Errorf("blue sees %+v", p.TenantPressure)
		}
	})
}

// A command says who gave it, as the server knows him: what a client writes itself is not
// believed.
func TestTheServerSaysWhoAsks(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		c := w.as(t, "blue-client").Conn()
		m := nats.NewMsg(schemas.CommandSubject(schemas.ActionAllocate))
		m.Data = []byte(`{"device_id": "gpu-0", "size_bytes": 1048576}`)
		m.Header.Set("Nats-Request-Info", `{"user": "blue-operator"}`)
		answer, err := c.RequestMsg(m, patience)
		if err != nil {
			t.Fatal(err)
		}
		var r struct{ Data schemas.AllocateReply }
		if err := json.Unmarshal(answer.Data, &r); err != nil || r.Data.Allocation.Owner.User != "blue-client" {
			t.Errorf("%v: granted to %+v", err, r.Data.Allocation.Owner)
		}
	})
}

// A quota is a tenant's that there is.
func TestLimitsOfTenantsThatThereAre(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		operator, soft := w.as(t, "blue-operator"), int64(64*mib)
		for tenant, want := range map[string]schemas.Code{"green": "", "default": "", "purple": schemas.CodeInvalidRequest} {
			in := &schemas.SetLimitsRequest{DeviceID: "gpu-0", Tenant: &schemas.TenantLimits{Name: tenant, SoftBytes: &soft}}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			err := operator.Call(ctx, schemas.ActionSetLimits, in, nil)
			cancel()
			var refused *schemas.Error
			if want == "" && err == nil {
				continue
			}
			if !errors.As(err, &refused) || refused.Code != want || refused.Details["field"] != "tenant.name" || !strings.Contains(refused.Message, "blue, green, default") {
				t.Errorf("a quota of %s: %v", tenant, err)
			}
		}
	})
}

// A client whose user is in no table offers a file to whoever shows the claim: it is the
// tenant's that loads it.
func TestAFileThatATenantOffers(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		blue, green := w.as(t, "blue-client"), w.as(t, "green-client")
		var g schemas.AllocateReply
		if code := call(t, blue, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib}, &g); code != "" {
			t.Fatal(code)
		}
		path := filepath.Join(t.TempDir(), "m.safetensors")
		if err := weightstest.Sized(1<<16, 1).WriteSafetensors(path); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		d, err := data.Dial(ctx, data.Config{SocketPath: g.Handle.DataSocket})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		claim, err := d.Offer(ctx, "mine", f)
		if err != nil {
			t.Fatal(err)
		}
		var r schemas.LoadModelReply
		in := &schemas.LoadModelRequest{Name: "mine", FileClaim: claim, DeviceID: "gpu-0"}
		if code := call(t, blue, schemas.ActionLoadModel, in, &r, client.WithWait(patience)); code != "" || r.Model.Tenant != "blue" {
			t.Fatalf("%q, of tenant %q", code, r.Model.Tenant)
		}
		if code := call(t, green, schemas.ActionLoadModel, in, nil); code != schemas.CodeStaleHandle {
			t.Errorf("the claim is used, and green gets %q", code)
		}
		var status schemas.GetStatusReply
		for c, count := range map[*client.Client]int{blue: 1, green: 0} {
			if call(t, c, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: "gpu-0"}, &status); status.ModelMemory.ModelCount != count {
				t.Errorf("%d models are told of, not %d", status.ModelMemory.ModelCount, count)
			}
		}
	})
}

// Each tenant hears of its own, and operators of all. What everybody heard is delimited by
// an event that everybody hears: a change of the device's level.
func TestEventsReachWhoseTheyAre(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		heard := map[string]*nats.Subscription{}
		for _, user := range []string{"blue-reader", "green-client", "blue-operator"} {
			nc := w.as(t, user).Conn()
			sub, err := nc.SubscribeSync(schemas.EventSubjects())
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			heard[user] = sub
		}
		blue, green := w.as(t, "blue-client"), w.as(t, "green-client")
		grant := func(c *client.Client, bytes int64) string {
			var g schemas.AllocateReply
			if code := call(t, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: bytes}, &g); code != "" {
				t.Fatal(code)
			}
			return g.AllocationID
		}
		ours := grant(green, 500*mib) // green's quota is nearly full
		theirs := grant(blue, 500*mib)
		for user, want := range map[string]struct {
			hears, not []string
		}{
			"blue-reader":   {[]string{theirs}, []string{ours, "tenant_pressure", "green"}},
			"green-client":  {[]string{ours, "tenant_pressure.green"}, []string{theirs, "blue"}},
			"blue-operator": {[]string{ours, theirs, "tenant_pressure.green"}, nil},
		} {
			all := ""
			missing := func() bool {
				for _, s := range append(want.hears, `"pressure_level":"critical"`) {
					if !strings.Contains(all, s) {
						return true
					}
				}
				return false
			}
			for missing() {
				m, err := heard[user].NextMsg(patience)
				if err != nil {
					t.Fatalf("%s does not hear all of %q: %v in %s", user, want.hears, err, all)
				}
				all += m.Subject + " " + string(m.Data) + "\n"
			}
			for _, s := range want.not {
				if strings.Contains(all, s) {
					t.Errorf("%s hears of %s: %s", user, s, all)
				}
			}
		}
	})
}

// No password and no claim is ever in a log, whatever is logged.
func TestSecretsAreNotLogged(t *testing.T) {
	inEach(t, func(t *testing.T, w *world) {
		c := w.as(t, "blue-client")
		var g schemas.AllocateReply
		if code := call(t, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib}, &g); code != "" {
			t.Fatal(code)
		}
		if bad, err := client.Connect(client.Options{URL: w.url, Username: "blue-client", Password: "almost-" + secret}); err == nil {
			bad.Close()
			t.Error("a wrong password was taken")
		}
		for _, s := range []string{secret, nodeSecret, "$2a$", g.Handle.Claim} {
			if strings.Contains(w.log.String(), s) {
				t.Errorf("%q is in the log", s)
			}
		}
	})
}

// Without tenants and without a password nobody listens beyond this machine.
func TestOnlyLoopbackWithoutCredentials(t *testing.T) {
	c := nodetest.Config(t.TempDir())
	c.Listen = "0.0.0.0:0"
	if n, err := node.Open(t.Context(), c, node.Hooks{}); err == nil {
		_, _ = n.Stop(t.Context())
		t.Fatal("it listens for everybody")
	}
}
