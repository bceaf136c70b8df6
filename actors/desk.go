package actors

import (
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// Submit implements Desk. A command whose outcome is remembered, or that names a session
// or brings a file claim,
// goes by the sessions actor; all others go straight to the actor that does them.
func (h *House) Submit(cmd *Command) {
	c := &call{Command: cmd, house: h, owner: ledger.Owner{Tenant: cmd.Tenant, User: cmd.User, UID: h.uidOf(cmd.Tenant)}}
	spec, ok := schemas.Lookup(cmd.Action)
	if !ok {
		c.fail(schemas.Errorf(schemas.CodeUnknownAction, "no action %q", cmd.Action))
		return
	}
	session := sessionOf(cmd.Data)
	if !(spec.Changing && cmd.Chosen && !cmd.DryRun) && session == "" && fileClaimOf(cmd.Data) == "" {
		c.outer = cmd.Lent
		h.route(c)
		return
	}
	s := h.sessions
	lane := seam.GrantLane
	if spec.Lane == schemas.LaneRelease {
		lane = seam.ReleaseLane
	}
	if s.tell(lane, func() { s.admit(c, spec, ledger.SessionID(session)) }) != nil {
		c.fail(busy("the node"))
	}
}

func sessionOf(data any) string {
	switch r := data.(type) {
	case *schemas.AllocateRequest:
		return r.SessionID
	case *schemas.AcquireModelRequest:
		return r.SessionID
	case *schemas.LoadModelRequest:
		return r.SessionID
	}
	return ""
}

// admit looks the session up and decides whether the command is new.
func (s *sessionsActor) admit(c *call, spec *schemas.Spec, session ledger.SessionID) {
	remembered := spec.Changing && c.Chosen && !c.DryRun && c.Action != schemas.ActionCancelOperation && c.Action != schemas.ActionCancelTransfer
	if remembered {
		key := ledger.AnswerKey(c.Tenant, c.RequestID)
		verdict, rec, err := s.answers.Ask(key, c.Digest, c, s.house.cfg.Clock.Now())
		switch verdict {
		case ledger.Reject:
			c.fail(err)
			return
		case ledger.Replay:
			s.replay(c, *rec)
			return
		case ledger.Join:
			s.join(c, key)
			return
		}
		c.key = key
	}
	if session != "" {
		x, err := s.core.Lookup(session)
		if err != nil {
			c.fail(err)
			return
		}
		c.owner.Session, c.owner.PID, c.owner.UID = x.ID, x.Process.PID, x.Process.UID
	}
	if err := s.redeem(c); err != nil {
		c.fail(err)
		return
	}
	s.house.route(c)
}

// join waits for the same command that is already running, at most as long as it may.
func (s *sessionsActor) join(c *call, key string) {
	s.house.cfg.Clock.AfterFunc(c.Wait, func() {
		s.tell(seam.SystemLane, func() {
			op := s.byReq[key]
			if op == nil {
				return // answered meanwhile
			}
			s.look(op, func() {
				if !s.answers.Leave(key, c) {
					return // answered meanwhile
				}
				p := s.describePending(op)
				p.Replayed = true
				c.Reply.Done(p, nil)
			})
		})
	})
}

// route gives a command to the actor that does it. It runs on the caller's goroutine: a
// subscription's, or the sessions actor's.
func (h *House) route(c *call) {
	switch in := c.Data.(type) {
	case *schemas.AllocateRequest:
		if d := h.pickFor(c, in.DeviceID, in.AllocationType); d != nil {
			d.allocate(c)
		}
	case *schemas.DeallocateRequest:
		if d, id, err := h.deviceOfID(in.AllocationID); err != nil {
			c.fail(err)
		} else {
			d.deallocate(c, id)
		}
	case *schemas.GetHandleRequest:
		h.getHandle(c, in)
	case *schemas.GetAllocationRequest:
		if d, id, err := h.deviceOfID(in.AllocationID); err != nil {
			c.fail(err)
		} else {
			d.getAllocation(c, id)
		}
	case *schemas.RenewRequest:
		h.renew(c, in)
	case *schemas.SetLimitsRequest:
		if d, err := h.device(in.DeviceID); err != nil {
			c.fail(err)
		} else {
			d.setLimits(c, in)
		}
	case *schemas.GetPressureRequest:
		if ds, err := h.some(in.DeviceID); err != nil {
			c.fail(err)
		} else {
			h.monitor.getPressure(c, ds, in.DeviceID == schemas.DeviceIDAll)
		}
	case *schemas.GetStatusRequest:
		h.getStatus(c, in)
	case *schemas.GetUsageRequest:
		h.getUsage(c, in)
	case *schemas.GetAllocationsRequest:
		h.getAllocations(c, in)
	case *schemas.GetQueueRequest:
		h.getQueue(c, in)
	case *schemas.ModelOptimizeRequest:
		h.modelOptimize(c, in)
	case *schemas.OptimizeRequest:
		h.optimize(c, in)
	case *schemas.OptimizationRecsRequest:
		h.recommendations(c, in)
	case *schemas.AnalyticsRequest:
		h.analytics.answer(c, in)
	case *schemas.CleanupRequest:
		h.cleanup(c, in)
	case *schemas.ListDevicesRequest:
		h.listDevices(c)
	case *schemas.ClearRequest:
		h.clear(c, in)
	case *schemas.CopyRequest:
		h.copyBytes(c, in)
	case *schemas.TransferRequest:
		h.transferBytes(c, in)
	case *schemas.DefragmentRequest:
		if d, err := h.device(in.DeviceID); err != nil {
			c.fail(err)
		} else {
			d.defragment(c)
		}
	case *schemas.GetOperationRequest, *schemas.CancelOperationRequest, *schemas.GetTransferRequest, *schemas.CancelTransferRequest:
		h.operations(c)
	case *schemas.LoadModelRequest, *schemas.UnloadModelRequest, *schemas.AcquireModelRequest, *schemas.ReleaseModelRequest,
		*schemas.GetModelInfoRequest, *schemas.ModelStatusRequest:
		h.pool.take(c)
	default:
		c.fail(schemas.Errorf(schemas.CodeInternalError, "defect: nobody does %s", c.Action))
	}
}

func (h *House) pickFor(c *call, id string, kind schemas.DeviceType) *deviceActor {
	d, err := h.pick(id, kind)
	if err != nil {
		c.fail(err)
	}
	return d
}

func (h *House) operations(c *call) {
	s := h.sessions
	err := s.offer(seam.ReleaseLane, c, func() {
		switch c.Action {
		case schemas.ActionCancelOperation:
			s.cancelOperation(c)
		case schemas.ActionCancelTransfer:
			s.cancelTransfer(c)
		case schemas.ActionGetTransfer:
			s.getTransfer(c)
		default:
			s.getOperation(c)
		}
	})
	if err != nil {
		c.fail(busy("the node"))
	}
}

func (h *House) getHandle(c *call, in *schemas.GetHandleRequest) {
	if in.AllocationID == "" {
		h.pool.take(c)
		return
	}
	d, id, err := h.deviceOfID(in.AllocationID)
	if err != nil {
		c.fail(err)
		return
	}
	d.getHandle(c, id)
}

// renew extends each lease; the first that cannot be fails the command, those before it
// stay renewed: renewing again is harmless.
func (h *House) renew(c *call, in *schemas.RenewRequest) {
	lease := time.Duration(in.LeaseSeconds) * time.Second
	r := &schemas.RenewReply{Finished: schemas.Done(), Renewed: []schemas.Renewal{}}
	var next func(i int)
	next = func(i int) {
		switch n := len(in.AllocationIDs); {
		case i < n:
			d, id, err := h.deviceOfID(in.AllocationIDs[i])
			if err != nil {
				c.fail(err)
				return
			}
			d.renew(id, c.Tenant, lease, c.DryRun, func(end time.Time, err *schemas.Error) {
				if err != nil {
					c.fail(err)
					return
				}
				r.Renewed = append(r.Renewed, schemas.Renewal{AllocationID: in.AllocationIDs[i], LeaseExpiresAt: end})
				next(i + 1)
			})
		case i < n+len(in.ReferenceIDs):
			ref := in.ReferenceIDs[i-n]
			h.pool.renew(c.Tenant, ref, lease, c.DryRun, func(end time.Time, err *schemas.Error) {
				if err != nil {
					c.fail(err)
					return
				}
				r.Renewed = append(r.Renewed, schemas.Renewal{ReferenceID: ref, LeaseExpiresAt: end})
				next(i + 1)
			})
		case c.DryRun:
			c.done(planned("granted", "the leases would be renewed"), nil)
		default:
			c.done(r, nil)
		}
	}
	next(0)
}

func (h *House) listDevices(c *call) {
	c.done(&schemas.ListDevicesReply{Devices: h.Devices()}, nil)
}

func (h *House) getUsage(c *call, in *schemas.GetUsageRequest) {
	ds, err := h.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	ask(h, ds, func(d *deviceActor) schemas.DeviceUsage { return d.usage(c.seesAll(), c.Tenant) }, func(parts []schemas.DeviceUsage, err *schemas.Error) {
		if err != nil {
			c.fail(err)
			return
		}
		c.done(&schemas.GetUsageReply{Devices: parts}, nil)
	})
}

func (h *House) getQueue(c *call, in *schemas.GetQueueRequest) {
	ds, err := h.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	part := func(d *deviceActor) []schemas.Waiting { return d.waiting(c.Tenant) }
	ask(h, ds, part, func(parts [][]schemas.Waiting, err *schemas.Error) {
		if err != nil {
			c.fail(err)
			return
		}
		r := &schemas.GetQueueReply{Waiting: []schemas.Waiting{}}
		for _, p := range parts {
			r.Waiting = append(r.Waiting, p...)
		}
		c.done(r, nil)
	})
}

// getAllocations lists grants device by device, each in the order of its ids.
func (h *House) getAllocations(c *call, in *schemas.GetAllocationsRequest) {
	ds, err := h.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	first, after, err := h.splitCursor(in.Cursor)
	if err != nil {
		c.fail(err)
		return
	}
	type part struct {
		id   string
		list []schemas.Allocation
		next string
	}
	limit := 100
	if in.Limit != nil {
		limit = *in.Limit
	}
	match := filter(in)
	tenant, err := c.visible(in.Tenant)
	if err != nil {
		c.fail(err)
		return
	}
	ask(h, ds, func(d *deviceActor) part {
		p := part{id: d.id}
		cursor := ""
		if in.Cursor != "" && d == h.devices[first] {
			cursor = after
		}
		p.list, p.next = d.page(tenant, limit, cursor, match)
		return p
	}, func(parts []part, err *schemas.Error) {
		if err != nil {
			c.fail(err)
			return
		}
		r := &schemas.GetAllocationsReply{Allocations: []schemas.Allocation{}}
		begun := in.Cursor == ""
		for _, p := range parts {
			begun = begun || p.id == h.devices[first].id
			if !begun {
				continue
			}
			room := limit - len(r.Allocations)
			if len(p.list) > room {
				p.list, p.next = p.list[:room], "more"
			}
			r.Allocations = append(r.Allocations, p.list...)
			if p.next != "" {
				if n := len(r.Allocations); n > 0 {
					last := r.Allocations[n-1]
					r.NextCursor = cursorOf(last.DeviceID, last.AllocationID)
				}
				break
			}
		}
		c.done(r, nil)
	})
}

// getStatus puts together what the devices and the pool know.
func (h *House) getStatus(c *call, in *schemas.GetStatusRequest) {
	ds, err := h.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	part := func(d *deviceActor) schemas.DeviceStatus { return d.status(in, c.Tenant) }
	ask(h, ds, part, func(parts []schemas.DeviceStatus, err *schemas.Error) {
		if err != nil {
			c.fail(err)
			return
		}
		h.pool.fillStatus(ds, parts, c.Tenant, func() {
			if in.DeviceID != schemas.DeviceIDAll {
				c.done(&schemas.GetStatusReply{DeviceStatus: parts[0], Warnings: h.warningsFor(c.Tenant, in.DeviceID)}, nil)
				return
			}
			c.done(&schemas.GetStatusReply{DeviceStatus: sumStatus(parts), Devices: parts, Warnings: h.warningsFor(c.Tenant, "")}, nil)
		})
	})
}
