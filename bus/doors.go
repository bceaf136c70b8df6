package bus

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/schemas"
)

// door is one way in for commands: a prefix of subjects, whose it is, and the most that a
// command which comes by it may be.
type door struct {
	tenant, prefix string
	role           schemas.Role
	label          string // before the names of its endpoints
}

// doors lists the ways in, by tenant. The one without a prefix is the nodes' own account,
// or a server without accounts: there the server says who may come in, and who is in may
// do all.
func (c *ServiceConfig) doors() []door {
	var out []door
	for t, prefix := range c.Tenants {
		d := door{tenant: t, prefix: prefix, role: schemas.RoleClient, label: t + "_"}
		if prefix == "" {
			d.role, d.label = schemas.RoleOperator, ""
		}
		out = append(out, d)
	}
	for t, prefix := range c.Operators {
		out = append(out, door{tenant: t, prefix: prefix, role: schemas.RoleOperator, label: t + "_operator_"})
	}
	slices.SortFunc(out, func(a, b door) int { return strings.Compare(a.label, b.label) })
	return out
}

// headerCaller is where the server says who sent what comes through an import that shares
// it. It writes it itself then, so that a client cannot.
const headerCaller = "Nats-Request-Info"

// user is who gave a command by a tenant's door. It is he whose inbox he names: naming
// another's he would give the answer away. What comes through the import of a service has no
// inbox, and there the server says who asks. By the door without a prefix nobody knows, and
// whatever a client writes into the header elsewhere is not believed.
func (e *endpoint) user(m *nats.Msg) string {
	if e.prefix == "" {
		return ""
	}
	inbox, _ := strings.CutPrefix(m.Reply, e.prefix+schemas.InboxSubject(""))
	if name, ok := strings.CutPrefix(inbox, accounts.InboxPrefix("")); ok {
		if name, _, ok = strings.Cut(name, "."); ok && len(name) <= maxUser {
			return name
		}
		return ""
	}
	if !strings.HasPrefix(m.Reply, serviceReplies) {
		return ""
	}
	var caller struct {
		User string `json:"user"`
	}
	if json.Unmarshal([]byte(m.Header.Get(headerCaller)), &caller) != nil || len(caller.User) > maxUser {
		return ""
	}
	return caller.User
}

// maxUser bounds the name that goes on record with every grant: a public key has 56 bytes.
const maxUser = 64

// answerTo is where an answer goes. A tenant's command names an inbox of its own account, which
// is reached by the door's own subject for inboxes; whatever else it names is nobody's there, and
// is never taken for a subject of the nodes' account. What the nodes' own account sends, or
// a server that imports commands as a service, is answered as it says.
func (e *endpoint) answerTo(reply string) string {
	inboxes := e.prefix + schemas.InboxSubject("")
	if e.prefix == "" || reply == "" || strings.HasPrefix(reply, inboxes) || strings.HasPrefix(reply, nats.InboxPrefix) || strings.HasPrefix(reply, serviceReplies) {
		return reply
	}
	return inboxes + reply
}

// serviceReplies begin the subjects by which a server brings answers to a service's importer.
const serviceReplies = "_R_."

// forbidden says why a command may not come by this endpoint. By the subject of any action
// only operators may come: the server cannot see which action it is.
func (e *endpoint) forbidden(spec *schemas.Spec) *schemas.Error {
	if e.action == schemas.ActionCommand && e.role != schemas.RoleOperator {
		return schemas.Errorf(schemas.CodeForbidden, "%s takes commands of operators only: use the action's own subject", schemas.AnyCommandSubject()).
			With("role", string(schemas.RoleOperator))
	}
	return allows(e.role, spec)
}

// allows says why a role may not give a command.
func allows(role schemas.Role, spec *schemas.Spec) *schemas.Error {
	if role.Allows(spec.Role) {
		return nil
	}
	return schemas.Errorf(schemas.CodeForbidden, "%s is for the role %s, this is a %s", spec.Action, spec.Role, role).With("role", string(spec.Role))
}
