package schemas

import "strings"

// Subjects come only from the functions of this file.

const (
	subjectRoot = "memory."
	tenantRoot  = "isobar."
	// Between tenant and subject where a tenant's operators speak.
	operatorPart = "operator."
	// Between tenant (or operators) and an inbox of theirs.
	inboxPart = "inbox."
)

// CommandSubject is where any node takes an action: memory.<action>
func CommandSubject(a Action) string { return subjectRoot + string(a) }

// NodeCommandSubject is where one node takes an action: memory.<action>.<node>
func NodeCommandSubject(a Action, node string) string {
	return subjectRoot + string(a) + "." + node
}

// AnyCommandSubject takes any action by its envelope: memory.command
func AnyCommandSubject() string { return CommandSubject(ActionCommand) }

// TenantSubject is how a subject of a tenant's account appears to the node:
// isobar.<tenant>.<subject>
func TenantSubject(tenant, subject string) string {
	return tenantRoot + tenant + "." + subject
}

// OperatorSubject is how a subject of a tenant's operators appears to the node:
// isobar.<tenant>.operator.<subject>
func OperatorSubject(tenant, subject string) string {
	return TenantSubject(tenant, operatorPart+subject)
}

// InboxSubject is how an inbox of an account appears to the node, behind the prefix by which
// the account's commands come: inbox.<inbox>
func InboxSubject(inbox string) string { return inboxPart + inbox }

// SplitTenant is the way back from TenantSubject. A subject without the prefix
// belongs to DefaultTenant.
func SplitTenant(subject string) (tenant, rest string) {
	if after, ok := strings.CutPrefix(subject, tenantRoot); ok {
		if tenant, rest, ok := strings.Cut(after, "."); ok && tenant != "" {
			return tenant, rest
		}
	}
	return DefaultTenant, subject
}

// SplitCommand takes the tenant, the action and the node (empty for any) out of the
// subject that a command arrived on. It reports false for any other subject.
func SplitCommand(subject string) (tenant string, a Action, node string, ok bool) {
	tenant, rest := SplitTenant(subject)
	rest, ok = strings.CutPrefix(rest, subjectRoot)
	if !ok {
		return "", "", "", false
	}
	name, node, _ := strings.Cut(rest, ".")
	if name == "" || name == "events" || name == "heartbeat" || strings.Contains(node, ".") {
		return "", "", "", false
	}
	return tenant, Action(name), node, true
}

// EventStream is the JetStream stream that keeps the events.
const EventStream = "MEMORY_EVENTS"

// TenantEventStream is the stream that keeps what a tenant may hear, in the nodes' account:
// MEMORY_EVENTS_<tenant>. In the tenant's account it appears as EventStream.
func TenantEventStream(tenant string) string { return EventStream + "_" + tenant }

// EventSubjects matches every kept event: memory.events.>
func EventSubjects() string { return subjectRoot + "events.>" }

// PressureSubject is memory.events.pressure.<node>.<device>
func PressureSubject(node, device string) string {
	return subjectRoot + "events.pressure." + node + "." + DeviceToken(device)
}

// TenantPressureSubject is memory.events.tenant_pressure.<tenant>.<node>.<device>
func TenantPressureSubject(tenant, node, device string) string {
	return subjectRoot + "events.tenant_pressure." + tenant + "." + node + "." + DeviceToken(device)
}

// AllocationSubject is memory.events.allocation.<node>.<device>
func AllocationSubject(node, device string) string {
	return subjectRoot + "events.allocation." + node + "." + DeviceToken(device)
}

// ModelSubject is memory.events.model.<node>.<device>
func ModelSubject(node, device string) string {
	return subjectRoot + "events.model." + node + "." + DeviceToken(device)
}

// TransferSubject is memory.events.transfer.<node>
func TransferSubject(node string) string { return subjectRoot + "events.transfer." + node }

// OptimizationSubject is memory.events.optimization.<node>.<device>
func OptimizationSubject(node, device string) string {
	return subjectRoot + "events.optimization." + node + "." + DeviceToken(device)
}

// CommandEventSubject is memory.events.command.<node>
func CommandEventSubject(node string) string { return subjectRoot + "events.command." + node }

// NodeSubject is memory.events.node.<node>
func NodeSubject(node string) string { return subjectRoot + "events.node." + node }

// HeartbeatSubject is memory.heartbeat.<node>
func HeartbeatSubject(node string) string { return subjectRoot + "heartbeat." + node }

// DeviceToken is a device id as one token of a subject: without the node that may
// stand before it (`<node>/gpu-0`).
func DeviceToken(device string) string {
	if i := strings.LastIndexByte(device, '/'); i >= 0 {
		return device[i+1:]
	}
	return device
}

// ValidToken reports whether s can be a node name, a device id or a tenant: 1 to 63
// lower-case letters, digits and dashes, neither first nor last a dash.
func ValidToken(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}
