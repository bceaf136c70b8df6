// Package accounts writes the part of a NATS server's configuration that keeps tenants
// apart. The embedded server and an external one read the same text, so that what is
// allowed does not depend on whose server it is.
//
// There is an account for the nodes, one for each tenant, and one for each tenant's
// operators, if it has any. A tenant's plain `memory.<action>` reaches the nodes as
// `isobar.<tenant>.memory.<action>`, its operators' as
// `isobar.<tenant>.operator.memory.<action>`: the node takes the tenant, and the most that
// a command may do, from the subject alone. What the node publishes under
// `isobar.<tenant>.memory.events` reaches that tenant as `memory.events`; operators get
// the events of all.
//
// Commands are imported as streams, and the users' inboxes as services under
// `isobar.<tenant>.inbox.`: so the answer to a command takes a way on which the server can say
// that nobody listens, upon which a grant is undone; and one node can pass a command on to
// another. An account that imports the nodes' subjects as a service, as somebody may write by
// hand, is served too, without either.
//
// Roles are permissions on subjects. A reader may give the commands that change nothing
// and hear events, a client all commands of its own tenant's, an operator any. Everybody
// has an inbox of its own, `_INBOX_<user>.>`, and may listen to no other.
//
// Passwords are here only as bcrypt hashes. A Config is checked by Validate; Text must
// not be called with one that it refuses.
package accounts
