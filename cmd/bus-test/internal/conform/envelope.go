package conform

import (
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/schemas"
)

// envelopes tries an action in every envelope that the contract knows, and in some that it
// does not.
func (c caller) envelopes(s sample) []check {
	spec, _ := schemas.Lookup(s.action)
	subject := schemas.CommandSubject(s.action)
	var out []check
	end := "success"
	if s.answer != "" {
		end = string(s.answer)
	}
	add := func(name, end string, run func()) {
		out = append(out, check{string(s.action) + "/" + c.f.name + "/" + name + " → " + end, run})
	}
	bare := nats.Header{"Content-Type": {c.f.mime}}
	add("in-its-envelope", end, func() { c.ask(s.action, s.data).expect(s.answer) })
	add("bare-data", end, func() { c.raw(subject, s.action, c.bytes(s.data), bare).expect(s.answer) })
	add("on-the-node's-subject", end, func() {
		c.askOn(schemas.NodeCommandSubject(s.action, c.node), s.action, s.data).expect(s.answer)
	})
	add("by-memory.command", end, func() {
		c.askOn(schemas.AnyCommandSubject(), s.action, s.data, action(s.action)).expect(s.answer)
	})
	add("its-action-named", end, func() { c.ask(s.action, s.data, action(s.action)).expect(s.answer) })
	add("another-action-named", "INVALID_REQUEST", func() {
		other := schemas.ActionListDevices
		if s.action == other {
			other = schemas.ActionGetQueue
		}
		c.ask(s.action, s.data, action(other)).expect(schemas.CodeInvalidRequest).names("action")
	})
	add("an-envelope-with-more", "INVALID_REQUEST", func() {
		c.ask(s.action, s.data, func(env object) { env["colour"] = "red" }).expect(schemas.CodeInvalidRequest).names("colour")
	})
	add("an-envelope-with-request_id-of-129-bytes", "INVALID_REQUEST", func() {
		got := c.raw(subject, s.action, c.bytes(object{"request_id": strings.Repeat("x", 129), "data": s.data}), bare)
		got.expect(schemas.CodeInvalidRequest).names("request_id")
	})
	add("an-envelope-with-request_id-a-number", "INVALID_REQUEST", func() {
		c.raw(subject, s.action, c.bytes(object{"request_id": 1, "data": s.data}), bare).expect(schemas.CodeInvalidRequest).names("request_id")
	})
	add("no-request_id", end+", with one of the node's", func() {
		c.raw(subject, s.action, c.bytes(object{"data": s.data}), bare).expect(s.answer)
	})
	add("empty-parameters", end, func() { c.ask(s.action, with(s.data, "parameters", object{})).expect(s.answer) })
	add("full-parameters", "INVALID_REQUEST", func() {
		c.ask(s.action, with(s.data, "parameters", object{"a": 1})).expect(schemas.CodeInvalidRequest).names("parameters")
	})
	add("answered-in-the-other-format", end, func() {
		other := caller{c.world, formats[0]}
		if c.f.name == other.f.name {
			other.f = formats[1]
		}
		other.raw(subject, s.action, c.bytes(s.data), nats.Header{"Content-Type": {c.f.mime}, "Accept": {other.f.mime}}).expect(s.answer)
	})
	needed := required(spec)
	if needed == "" {
		add("no-data", "success", func() { c.ask(s.action, nil).expect("") })
		add("an-empty-payload", "success", func() { c.raw(subject, s.action, nil, bare).expect("") })
	} else {
		add("no-data", "INVALID_REQUEST", func() { c.ask(s.action, nil).expect(schemas.CodeInvalidRequest) })
		add("an-empty-payload", "INVALID_REQUEST", func() { c.raw(subject, s.action, nil, bare).expect(schemas.CodeInvalidRequest) })
	}
	if spec.Changing {
		out = append(out, c.changing(s, end)...)
	}
	return out
}

// changing tries what only changing actions take.
func (c caller) changing(s sample, end string) []check {
	name := func(what string) string { return string(s.action) + "/" + c.f.name + "/" + what }
	out := []check{
		{name("dry_run-changes-nothing"), func() {
			before := c.account()
			c.ask(s.action, with(s.data, "dry_run", true))
			c.same(before)
		}},
		{name("wait_ms-0 → " + end + ", or pending"), func() {
			got := c.ask(s.action, with(s.data, "wait_ms", 0)).expect(s.answer)
			if id := text(got.data, "operation_id"); id != "" {
				c.ask(schemas.ActionGetOperation, object{"operation_id": id, "wait_ms": 10_000}).expect("")
			}
		}},
		{name("no-reply-subject → event command"), func() {
			id := c.nextID()
			m := &nats.Msg{Subject: "memory." + string(s.action), Header: nats.Header{"Content-Type": {c.f.mime}},
				Data: c.bytes(object{"request_id": id, "data": s.data})}
			if err := c.nc.PublishMsg(m); err != nil {
				fail("%v", err)
			}
			kind := schemas.EventCompleted
			if s.answer != "" {
				kind = schemas.EventFailed
			}
			e := c.await(kind, "events.command", of("request_id", id))
			want(e.data, "action", string(s.action))
			if s.answer != "" {
				want(e.data, "error_code", string(s.answer), "status_code", s.answer.Status())
				return
			}
			result, _ := e.data["result"].(object)
			c.noteGrant(s.action, result)
		}},
	}
	if s.answer != "" {
		return out
	}
	return append(out, check{name("request_id-again → the first outcome"), func() {
		id := id(c.nextID())
		first := c.do(s.action, s.data, id)
		before := c.account()
		again := c.do(s.action, s.data, id)
		want(again, "replayed", true, "allocation_id", first["allocation_id"])
		want(first, "replayed", nil)
		c.same(before)
	}}, check{name("request_id-with-other-content → REQUEST_ID_REUSED"), func() {
		id := id(c.nextID())
		c.do(s.action, s.data, id)
		c.ask(schemas.ActionDeallocate, object{"allocation_id": nobody}, id).expect(schemas.CodeRequestIDReused)
	}})
}

// action names the action in the envelope.
func action(a schemas.Action) change { return func(env object) { env["action"] = string(a) } }

// required is a field that the action must have: by its tags or by its rules.
func required(spec *schemas.Spec) string {
	for i := range spec.Request.NumField() {
		if strings.Contains(spec.Request.Field(i).Tag.Get("check"), "required") {
			return spec.Request.Field(i).Name
		}
	}
	if v, ok := spec.NewRequest().(schemas.Validator); ok && v.Validate() != nil {
		return "one of several"
	}
	return ""
}

// anyAction tries the subject that takes every action.
func (c caller) anyAction() []check {
	name := func(what string) string { return "command/" + c.f.name + "/" + what }
	on := func(data object, changes ...change) answer {
		return c.askOn(schemas.AnyCommandSubject(), "", data, changes...)
	}
	return []check{
		{name("no-action → INVALID_REQUEST"), func() { on(object{}).expect(schemas.CodeInvalidRequest).names("action") }},
		{name("an-action-of-nobody → UNKNOWN_ACTION"), func() { on(object{}, action("levitate")).expect(schemas.CodeUnknownAction) }},
		{name("an-action-with-its-prefix → success"), func() { on(object{}, action("memory.list_devices")).expect("") }},
		{name("an-older-name → success"), func() { on(object{}, action(schemas.ActionGetModelStatus)).expect("") }},
		{name("on-the-node's-subject → success"), func() {
			c.askOn(schemas.NodeCommandSubject(schemas.ActionCommand, c.node), schemas.ActionListDevices, object{}, action(schemas.ActionListDevices)).expect("")
		}},
		{name("get_model_status on its own subject → success"), func() { c.ask(schemas.ActionGetModelStatus, object{}).expect("") }},
	}
}
