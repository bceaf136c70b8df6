package bus

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// How commands find their node where there are several.
//
// A command that names another node's object or device is passed on to that node: the same
// message, on the node's own subject, with the requester's reply subject, so that the node
// answers the requester itself and hears whether anybody listens. A bare id or a name that
// this node does not know is passed from node to node along a list in a header, each of which
// answers or passes on. The list only shrinks, so that nothing goes round. A client that sets
// the header itself can choose which nodes are asked; they are its own tenant's anyway.

// headerPassed lists, comma-separated, the nodes that are still to be asked.
const headerPassed = "Isobar-Passed"

// passage is what is kept of a message while another node may have to be asked.
type passage struct {
	action schemas.Action // as in the subject
	header nats.Header
	data   []byte
	left   []string
}

// route decides where a decoded command goes: nil and it is done here; else it was passed on
// or refused, and is answered.
func (e *endpoint) route(a *answer, m *nats.Msg) (elsewhere bool) {
	c := &a.command
	var node string
	var err *schemas.Error
	if marked(m.Data) {
		node, err = e.nodeOf(c.Data)
	}
	others := e.s.peers.others()
	listed, passed := m.Header[headerPassed]
	switch {
	case err != nil:
		a.Fail(err)
		return true
	case node != "" && node != e.s.cfg.Node:
		a.passage = e.passage(c, m, nil)
		a.passToNamed(node, others)
		return true
	case node == "" && !e.direct && !passed && len(others) > 0 && e.s.names.needsNode(c.Data):
		a.Fail(schemas.Errorf(schemas.CodeNodeRequired, "several nodes serve here: name one, by the subject (memory.%s.NODE) or before the device (NODE/DEVICE)", e.actionOf(c)).
			With("nodes", e.everybody(others)))
		return true
	case node != "":
		return false // named, and here
	case passed:
		others = nil
		for _, n := range strings.Split(strings.Join(listed, ","), ",") {
			if schemas.ValidToken(n) && n != e.s.cfg.Node && len(others) < maxPeers {
				others = append(others, n)
			}
		}
	}
	if len(others) > 0 {
		a.passage = e.passage(c, m, others)
	}
	return false
}

// passToNamed hands the command to the node that it names.
func (a *answer) passToNamed(node string, others []string) {
	a.passTo(node, func() {
		a.Fail(schemas.Errorf(schemas.CodeNoNode, "no node %q is there", node).With("nodes", a.e.everybody(others)))
	})
}

// marked tells whether a payload has one of the bytes without which it names no node: what ends
// a node's name, and what JSON could hide that behind. Most commands have none of them, and
// need not be looked through field by field.
func marked(payload []byte) bool {
	return bytes.IndexByte(payload, '.') >= 0 || bytes.IndexByte(payload, '/') >= 0 || bytes.IndexByte(payload, '\\') >= 0
}

// everybody lists all nodes, this one included.
func (e *endpoint) everybody(others []string) []string {
	all := append([]string{e.s.cfg.Node}, others...)
	slices.Sort(all)
	return all
}

func (e *endpoint) actionOf(c *actors.Command) schemas.Action {
	if e.action != schemas.ActionCommand {
		return e.action
	}
	return c.Action
}

// passage copies the message, which is the link's.
func (e *endpoint) passage(c *actors.Command, m *nats.Msg, left []string) *passage {
	p := &passage{action: e.actionOf(c), header: maps.Clone(m.Header), data: slices.Clone(m.Data), left: left}
	if p.header == nil {
		p.header = nats.Header{}
	}
	return p
}

// passOn gives a command that this node cannot do to the next node of its list; false if
// nobody is left to ask.
func (a *answer) passOn(e *schemas.Error) bool {
	p := a.passage
	if p == nil || len(p.left) == 0 || !unknownHere(e.Code) {
		return false
	}
	next := p.left[0]
	p.left = p.left[1:]
	a.passTo(next, func() {
		if !a.passOn(e) {
			a.Fail(e)
		}
	})
	return true
}

// unknownHere tells the errors that mean: ask another node.
func unknownHere(c schemas.Code) bool {
	switch c {
	case schemas.CodeAllocationNotFound, schemas.CodeTransferNotFound, schemas.CodeModelNotFound, schemas.CodeOperationNotFound:
		return true
	}
	return false
}

// passTo hands the command to a node, which answers it. absent is called if the node turns
// out not to be there.
func (a *answer) passTo(node string, absent func()) {
	s, p := a.e.s, a.passage
	p.header[headerPassed] = []string{strings.Join(p.left, ",")}
	// The probe goes first: a server that has lost the node says so of both.
	token := s.unheard.watch(absent, s.cfg.Clock.Now())
	err := s.cfg.Link.Publish(presenceSubject(node), token, nil, nil)
	if err == nil {
		err = s.cfg.Link.Publish(a.e.prefix+schemas.NodeCommandSubject(p.action, node), a.to, p.header, p.data)
	}
	if err != nil {
		s.unheard.forget(token)
		s.cfg.Log.Warn("a command could not be passed on", "node", node, "action", p.action, "request_id", a.command.RequestID, "error", err)
		absent()
	}
}

// nodeOf is the node that a request names before an id or a device, "" for none. Where it
// is this node's own, it is taken off the ids: the rest of the house knows bare ones.
func (e *endpoint) nodeOf(data any) (string, *schemas.Error) {
	found := ""
	var err *schemas.Error
	e.s.names.each(data, func(field string, kind nameKind, name *string) {
		node, rest := splitNode(kind, *name)
		switch {
		case node == "":
			return
		case found != "" && node != found:
			err = schemas.Errorf(schemas.CodeInvalidRequest, "%s is of node %s, another field of node %s: one command is for one node", field, node, found).With("field", field)
		}
		found = node
		if node == e.s.cfg.Node && kind == bareName {
			*name = rest
		}
	})
	return found, err
}

// nameKind is how a field carries its node.
type nameKind uint8

const (
	bareName      nameKind = iota // <node>.<uuid>; known inside by the uuid alone
	operationName                 // <node>.<uuid>; known inside as a whole
	deviceName                    // <node>/<device>
)

// namedFields are the fields of requests that can carry a node.
var namedFields = map[string]nameKind{
	"AllocationID": bareName, "AllocationIDs": bareName, "SourceAllocationID": bareName, "TargetAllocationID": bareName,
	"ReferenceID": bareName, "ReferenceIDs": bareName, "PreserveAllocations": bareName,
	"OperationID": operationName, "TransferID": operationName,
	"DeviceID": deviceName, "SourceDeviceID": deviceName, "TargetDeviceID": deviceName,
}

// namePlan is, for each type of request, which of its fields are ids and devices: found
// once, for it is looked at with every command.
type namePlan map[reflect.Type][]nameField

type nameField struct {
	index int
	wire  string
	kind  nameKind
}

func planNames() namePlan {
	p := namePlan{}
	for _, s := range schemas.All() {
		r := reflect.TypeOf(s.NewRequest()).Elem()
		for i := range r.NumField() {
			if kind, ok := namedFields[r.Field(i).Name]; ok {
				wire, _, _ := strings.Cut(r.Field(i).Tag.Get("json"), ",")
				p[r] = append(p[r], nameField{i, wire, kind})
			}
		}
	}
	return p
}

// each calls f for every id and device of a request.
func (p namePlan) each(data any, f func(field string, kind nameKind, name *string)) {
	v := reflect.ValueOf(data)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return
	}
	v = v.Elem()
	for _, n := range p[v.Type()] {
		switch x := v.Field(n.index).Addr().Interface().(type) {
		case *string:
			f(n.wire, n.kind, x)
		case *[]string:
			for j := range *x {
				f(n.wire, n.kind, &(*x)[j])
			}
		}
	}
}

func splitNode(kind nameKind, name string) (node, rest string) {
	sep := "."
	if kind == deviceName {
		sep = "/"
	}
	node, rest, ok := strings.Cut(name, sep)
	if !ok || !schemas.ValidToken(node) {
		return "", name
	}
	return node, rest
}

// needsNode tells the requests that mean one node's devices without saying which: any node
// would do them, each otherwise.
func (p namePlan) needsNode(data any) bool {
	switch r := data.(type) {
	case *schemas.AllocateRequest, *schemas.LoadModelRequest, *schemas.CleanupRequest, *schemas.ModelOptimizeRequest:
		return true
	case *schemas.UnloadModelRequest:
		return r.Name == schemas.ModelNameAll || r.DeviceID != ""
	}
	needs := false
	p.each(data, func(_ string, kind nameKind, name *string) {
		needs = needs || kind == deviceName && *name != "" && *name != schemas.DeviceIDAll
	})
	return needs
}
