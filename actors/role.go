package actors

import "github.com/isobar-project/isobar/schemas"

// seesAll reports whether a command may look at every tenant's.
func (c *call) seesAll() bool { return c.Role == "" || c.Role == schemas.RoleOperator }

// scope is the tenant whose things a command is told of where it names none; empty: anybody's.
func (c *call) scope() string {
	if c.seesAll() {
		return ""
	}
	return c.Tenant
}

// may reports whether who gave the command could give another: what it is recommended must
// be ready to send.
func (c *call) may(a schemas.Action) bool {
	spec, ok := schemas.Lookup(a)
	return ok && (c.seesAll() || spec.Role != schemas.RoleOperator)
}

// visible is the tenant whose things a query lists: its own, or for operators the one
// that it names.
func (c *call) visible(asked string) (string, *schemas.Error) {
	switch {
	case asked == "" || asked == c.Tenant:
		return c.Tenant, nil
	case c.seesAll():
		return asked, nil
	}
	return "", schemas.Errorf(schemas.CodeForbidden, "only operators see what another tenant has").With("field", "tenant")
}
