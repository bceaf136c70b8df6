package jsonschema

import (
	"github.com/isobar-project/isobar/schemas"
)

// Dialect is the $schema of every schema.
const Dialect = "https://json-schema.org/draft/2020-12/schema"

// Docs gives the words that describe types and their fields, by Go names; "" where there
// are none. Its texts are in wire names.
type Docs interface {
	Type(name string) string
	Field(owner, field string) string
}

// ID is the $id of a schema, for example urn:isobar:memory:allocate.request.
func ID(name string) string { return "urn:isobar:memory:" + name }

// RequestName, ReplyName and EventName name a schema: in its $id, and as a file.
func RequestName(a schemas.Action) string { return string(a) + ".request" }

// ReplyName is the name of a reply's schema.
func ReplyName(a schemas.Action) string { return string(a) + ".reply" }

// EventName is the name of the schema of a group of events.
func EventName(e *schemas.EventSpec) string { return "event." + e.Name }

// The names of the envelopes' schemas.
const (
	RequestEnvelopeName = "envelope.request"
	ReplyEnvelopeName   = "envelope.reply"
)

// Request describes an action's data. docs may be nil.
func Request(s *schemas.Spec, docs Docs) Object {
	b := newBuilder(docs, true)
	o := b.object(s.Request)
	if s.Changing {
		o = withCommon(o)
	}
	return b.whole(RequestName(s.Action), s.Summary, o)
}

// Reply describes an action's reply data: for a changing action the finished one, the one
// of a command that is not done within its wait, or a dry run's plan. docs may be nil.
func Reply(s *schemas.Spec, docs Docs) Object {
	b := newBuilder(docs, false)
	if !s.Changing {
		return b.whole(ReplyName(s.Action), s.Summary, b.object(s.Reply))
	}
	return b.whole(ReplyName(s.Action), s.Summary, Object{{"anyOf", []any{b.named(s.Reply), b.named(typeOfPending), b.named(typeOfDryRun)}}})
}

// Event describes a whole message of a group of events: the envelope, and data according
// to the kind. docs may be nil.
func Event(e *schemas.EventSpec, docs Docs) Object {
	b := newBuilder(docs, false)
	kinds := make([]any, len(e.Kinds))
	for i, k := range e.Kinds {
		kinds[i] = string(k)
	}
	forms := []any{Object{{"properties", Object{
		{"event", Object{{"enum", kinds}}},
		{"data", b.named(e.Data)},
	}}}}
	if e.Kept {
		forms = append(forms, Object{{"properties", Object{
			{"event", Object{{"const", string(schemas.EventGap)}}},
			{"data", b.named(typeOfGap)},
		}}})
	}
	o := append(b.object(typeOfEvent), Member{"anyOf", forms})
	return b.whole(EventName(e), e.Summary, o)
}

// RequestEnvelope describes what goes around every action's data.
func RequestEnvelope() Object {
	b := newBuilder(nil, true)
	return b.whole(RequestEnvelopeName, "A request. An object with none of these keys is taken as data.", envelope(
		Member{"request_id", Object{{"type", "string"}, {"maxLength", schemas.MaxRequestIDBytes},
			{"description", "Names the command: repeated with the same content it has the first outcome, never a second effect. The node makes one where it is absent."}}},
		Member{"action", Object{{"type", "string"},
			{"description", "May be left out where the subject says it; must agree with the subject."}}},
		Member{"data", Object{{"type", "object"}, {"description", "The action's own schema describes it."}}}))
}

func envelope(members ...Member) Object {
	return Object{{"type", "object"}, {"properties", Object(members)}, {"additionalProperties", false}}
}

// ReplyEnvelope describes what goes around every reply's data, and every error.
func ReplyEnvelope() Object {
	b := newBuilder(nil, false)
	codes := make([]any, 0, len(schemas.Codes()))
	for _, c := range schemas.Codes() {
		codes = append(codes, string(c.Code))
	}
	text := Object{{"type", "string"}}
	form := func(success bool, members ...Member) Object {
		o := envelope(append([]Member{{"success", Object{{"const", success}}}, {"request_id", text}, {"timestamp", timestamp()}, {"node", text}}, members...)...)
		names := []any{"success", "request_id", "timestamp", "node"}
		for _, m := range members {
			if m.Name != "details" {
				names = append(names, m.Name)
			}
		}
		return append(o, Member{"required", names})
	}
	return b.whole(ReplyEnvelopeName, "A reply: data, or an error.", Object{{"oneOf", []any{
		form(true, Member{"data", Object{{"type", "object"}, {"description", "The action's own schema describes it."}}}),
		form(false, Member{"error_code", Object{{"enum", codes}}}, Member{"error_message", text},
			Member{"status_code", Object{{"type", "integer"}, {"minimum", 400}, {"maximum", 599}}},
			Member{"details", Object{{"type", "object"}}}),
	}}})
}
