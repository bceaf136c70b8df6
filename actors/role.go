package actors

import "github.com/isobar-project/isobar/schemas"

// seesAll reports whether a command may look at every tenant's.
func (c *call) seesAll() bool { return c.Role == "" || c.Role == schemas.RoleOperator }

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
