package main

import (
	"strings"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// object is shorter to read where a document is nothing but objects.
type object = jsonschema.Object

// queueGroup is what the nodes of one server share their commands by.
const queueGroup = "q"

func ref(to string) object { return object{{Name: "$ref", Value: to}} }

func schemaRef(name string) object { return ref("./schema/" + name + ".json") }

// asyncAPI describes the service as AsyncAPI 3.0: a channel for every subject, an operation
// for every action and every group of events.
func asyncAPI() []byte {
	d := &document{}
	for _, s := range schemas.All() {
		for _, name := range append([]schemas.Action{s.Action}, s.Aliases...) {
			d.action(s, name)
		}
	}
	d.anyAction()
	for _, e := range schemas.Events() {
		d.event(e)
	}
	d.channels = append(d.channels, member("replies", object{
		{Name: "address", Value: nil},
		{Name: "description", Value: "The reply subject of each request: an inbox of the requester's own."},
		{Name: "messages", Value: d.replies},
	}))
	d.messages = append(d.messages, member("error", object{
		{Name: "name", Value: "error"}, {Name: "title", Value: "A command that failed"}, {Name: "summary", Value: "errors.md lists the codes"},
		{Name: "contentType", Value: "application/json"},
		{Name: "headers", Value: object{
			{Name: "type", Value: "object"},
			{Name: "properties", Value: object{
				member("Nats-Service-Error", object{{Name: "type", Value: "string"}, {Name: "description", Value: "error_code: error_message"}}),
				member("Nats-Service-Error-Code", object{{Name: "type", Value: "string"}, {Name: "description", Value: "status_code"}}),
			}},
		}},
		{Name: "payload", Value: schemaRef(jsonschema.ReplyEnvelopeName)},
	}))
	var b strings.Builder
	b.WriteString("# " + notice + "\n")
	yaml(&b, object{
		{Name: "asyncapi", Value: "3.0.0"},
		{Name: "info", Value: object{
			{Name: "title", Value: "Isobar"},
			{Name: "version", Value: "1.0.0"},
			{Name: "description", Value: "The memory plane of a machine that serves models, over NATS. Requests and replies are JSON or, with the headers Content-Type and " +
				"Accept, MessagePack of the same names; events are JSON. Where tenants have accounts, the node sees their subjects behind isobar.<tenant>."},
		}},
		{Name: "defaultContentType", Value: "application/json"},
		{Name: "channels", Value: d.channels},
		{Name: "operations", Value: d.operations},
		{Name: "components", Value: object{{Name: "messages", Value: d.messages}}},
	}, "")
	return []byte(b.String())
}

func member(name string, value any) jsonschema.Member {
	return jsonschema.Member{Name: name, Value: value}
}

// document gathers the parts of the document that refer to each other.
type document struct {
	channels, operations, messages, replies object
}

// channel adds a channel whose messages are components.
func (d *document) channel(name, address, summary string, parameters []string, messages ...string) {
	c := object{{Name: "address", Value: address}, {Name: "summary", Value: summary}}
	if len(parameters) > 0 {
		var ps object
		for _, p := range parameters {
			ps = append(ps, member(p, object{{Name: "description", Value: places[p]}}))
		}
		c = append(c, member("parameters", ps))
	}
	var ms object
	for _, m := range messages {
		ms = append(ms, member(m, ref("#/components/messages/"+m)))
	}
	d.channels = append(d.channels, member(name, append(c, member("messages", ms))))
}

// places describe what varies in addresses.
var places = map[string]string{
	"node":   "The node's name: lower-case letters, digits and dashes.",
	"device": "The device's id, for example gpu-0.",
	"tenant": "The tenant's name.",
}

// action adds the two subjects of an action under one of its names.
func (d *document) action(s *schemas.Spec, name schemas.Action) {
	request, reply := "request_"+string(s.Action), "reply_"+string(s.Action)
	if name == s.Action {
		d.commandMessages(s, request, reply)
	}
	d.channel(string(name), schemas.CommandSubject(name), "Any node: "+s.Summary, nil, request)
	d.channel(string(name)+"_node", schemas.NodeCommandSubject(name, "{node}"), "One node: "+s.Summary, []string{"node"}, request)
	d.operation(string(name), s.Summary, request, reply)
	d.operation(string(name)+"_node", s.Summary, request, reply)
}

func (d *document) commandMessages(s *schemas.Spec, request, reply string) {
	d.messages = append(d.messages,
		member(request, object{
			{Name: "name", Value: request}, {Name: "title", Value: "A request to " + s.Summary}, {Name: "contentType", Value: "application/json"},
			{Name: "payload", Value: object{
				{Name: "title", Value: "The envelope; the data alone is taken too"},
				{Name: "type", Value: "object"},
				{Name: "properties", Value: object{
					member("request_id", object{{Name: "type", Value: "string"}, {Name: "maxLength", Value: schemas.MaxRequestIDBytes}}),
					member("action", object{{Name: "const", Value: string(s.Action)}}),
					member("data", schemaRef(jsonschema.RequestName(s.Action))),
				}},
				{Name: "additionalProperties", Value: false},
			}},
		}),
		member(reply, object{
			{Name: "name", Value: reply}, {Name: "title", Value: "The reply of " + string(s.Action)}, {Name: "contentType", Value: "application/json"},
			{Name: "payload", Value: object{
				{Name: "type", Value: "object"},
				{Name: "properties", Value: object{
					member("success", object{{Name: "const", Value: true}}),
					member("request_id", object{{Name: "type", Value: "string"}}),
					member("timestamp", object{{Name: "type", Value: "string"}, {Name: "format", Value: "date-time"}}),
					member("node", object{{Name: "type", Value: "string"}}),
					member("data", schemaRef(jsonschema.ReplyName(s.Action))),
				}},
				{Name: "required", Value: []any{"success", "request_id", "timestamp", "node", "data"}},
				{Name: "additionalProperties", Value: false},
			}},
		}))
	d.replies = append(d.replies, member(reply, ref("#/components/messages/"+reply)))
	if len(d.replies) == 1 {
		d.replies = append(d.replies, member("error", ref("#/components/messages/error")))
	}
}

// operation adds what the node does with a command.
func (d *document) operation(channel, summary, request, reply string) {
	d.operations = append(d.operations, member(channel, object{
		{Name: "action", Value: "receive"},
		{Name: "summary", Value: summary},
		{Name: "channel", Value: ref("#/channels/" + channel)},
		{Name: "messages", Value: []any{ref("#/channels/" + channel + "/messages/" + request)}},
		{Name: "bindings", Value: object{member("nats", object{{Name: "queue", Value: queueGroup}})}},
		{Name: "reply", Value: object{
			{Name: "channel", Value: ref("#/channels/replies")},
			{Name: "messages", Value: []any{ref("#/channels/replies/messages/" + reply), ref("#/channels/replies/messages/error")}},
		}},
	}))
}

// anyAction adds the subject that takes every action by its envelope.
func (d *document) anyAction() {
	var requests []string
	for _, s := range schemas.All() {
		requests = append(requests, "request_"+string(s.Action))
	}
	d.channel("command", schemas.AnyCommandSubject(), "Any action, named by its envelope; for operators where roles are configured", nil, requests...)
	d.channel("command_node", schemas.NodeCommandSubject(schemas.ActionCommand, "{node}"), "The same, of one node", []string{"node"}, requests...)
	for _, channel := range []string{"command", "command_node"} {
		d.operations = append(d.operations, member(channel, object{
			{Name: "action", Value: "receive"},
			{Name: "summary", Value: "any action, named by its envelope"},
			{Name: "channel", Value: ref("#/channels/" + channel)},
			{Name: "bindings", Value: object{member("nats", object{{Name: "queue", Value: queueGroup}})}},
			{Name: "reply", Value: object{{Name: "channel", Value: ref("#/channels/replies")}}},
		}))
	}
}

// event adds a group of events.
func (d *document) event(e *schemas.EventSpec) {
	name := "event_" + e.Name
	var parameters []string
	for token := range strings.SplitSeq(e.Subject, ".") {
		if p, ok := strings.CutPrefix(token, "{"); ok {
			parameters = append(parameters, strings.TrimSuffix(p, "}"))
		}
	}
	d.messages = append(d.messages, member(name, object{
		{Name: "name", Value: name}, {Name: "title", Value: e.Summary}, {Name: "contentType", Value: "application/json"},
		{Name: "payload", Value: schemaRef(jsonschema.EventName(e))},
	}))
	d.channel(name, e.Subject, e.Summary, parameters, name)
	d.operations = append(d.operations, member(name, object{
		{Name: "action", Value: "send"},
		{Name: "summary", Value: e.Summary},
		{Name: "channel", Value: ref("#/channels/" + name)},
		{Name: "messages", Value: []any{ref("#/channels/" + name + "/messages/" + name)}},
	}))
}
