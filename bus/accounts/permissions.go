package accounts

import (
	"fmt"
	"strings"

	"github.com/isobar-project/isobar/schemas"
)

// discoverySubject is where the micro service tells of itself.
const discoverySubject = "$SRV.>"

// commandSubjects match every command, to any node and to one. They leave out the
// events, which have more tokens.
func commandSubjects() []string {
	return []string{schemas.CommandSubject("*"), schemas.NodeCommandSubject("*", "*")}
}

// sentSubjects match the same commands, and nothing that nodes tell: a stream that went both
// ways would be a cycle.
func sentSubjects() []string {
	out := []string{schemas.CommandSubject("*"), schemas.NodeCommandSubject(schemas.ActionCommand, "*")}
	for _, s := range schemas.All() {
		for _, a := range append([]schemas.Action{s.Action}, s.Aliases...) {
			out = append(out, schemas.NodeCommandSubject(a, "*"))
		}
	}
	return out
}

// eventSubjects match what nodes tell.
func eventSubjects() []string {
	return []string{schemas.EventSubjects(), schemas.HeartbeatSubject("*")}
}

// historySubjects are the ways to read a stream of events that leave nothing behind: what it
// has, and its messages by number, by time and by subject. Consumers are not among them: one
// that pushes could send what is kept to any subject of the nodes' account.
func historySubjects(stream string) []string {
	return []string{"$JS.API.STREAM.INFO." + stream, "$JS.API.DIRECT.GET." + stream, "$JS.API.DIRECT.GET." + stream + ".>"}
}

// Publish lists the subjects that a role may publish to.
func Publish(role schemas.Role) []string {
	if role == schemas.RoleOperator {
		return append(append(commandSubjects(), discoverySubject), historySubjects(schemas.EventStream)...)
	}
	out := historySubjects(schemas.EventStream)
	for _, s := range schemas.All() {
		if !role.Allows(s.Role) {
			continue
		}
		for _, a := range append([]schemas.Action{s.Action}, s.Aliases...) {
			out = append(out, schemas.CommandSubject(a), schemas.NodeCommandSubject(a, "*"))
		}
	}
	return out
}

// permissions are those of one user, as nats-server reads them. What is not allowed is
// denied.
func permissions(u User) string {
	subscribe := append([]string{InboxPrefix(u.Name) + ".>"}, eventSubjects()...)
	return fmt.Sprintf("{publish: {allow: [%s]}, subscribe: {allow: [%s]}}", quoted(Publish(u.Role)), quoted(subscribe))
}

func quoted(subjects []string) string {
	out := make([]string, len(subjects))
	for i, s := range subjects {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}
