package node

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// TenantSpec is one tenant as configured.
type TenantSpec struct {
	// Name is one token; the tenant's account and subjects have it.
	Name string `json:"name"`
	// Users may connect as this tenant.
	Users []UserSpec `json:"users,omitempty"`
	// UIDs are users of this machine: on the data socket they are this tenant, and no
	// other tenant's memory is mapped by them. They may use the socket.
	UIDs []uint32 `json:"uids,omitempty"`
	// Quotas hold on a device until set_limits says something else.
	Quotas []QuotaSpec `json:"quotas,omitempty"`
}

// UserSpec is who may connect. PasswordHash is a bcrypt hash, NKey the public key of a
// user; one of them.
type UserSpec struct {
	Name         string       `json:"name"`
	Role         schemas.Role `json:"role"`
	PasswordHash string       `json:"password_hash,omitempty"`
	NKey         string       `json:"nkey,omitempty"`
}

// QuotaSpec is a quota on a device, sizes as people write them; "" is none.
type QuotaSpec struct {
	Device string   `json:"device"`
	Floor  sizeText `json:"floor,omitempty"`
	Soft   sizeText `json:"soft,omitempty"`
	Hard   sizeText `json:"hard,omitempty"`
	Weight float64  `json:"weight,omitempty"`
}

// sizeText is a size in a file: 4GiB, or a number of bytes.
type sizeText string

// UnmarshalJSON takes a number as well as a text.
func (s *sizeText) UnmarshalJSON(b []byte) error {
	*s = sizeText(strings.Trim(string(b), `"`))
	if *s == "" || *s == "null" {
		*s = ""
		return nil
	}
	_, err := ParseSize(string(*s))
	return err
}

// bytes is the size, which has been parsed before.
func (s sizeText) bytes() int64 {
	n, err := ParseSize(string(s))
	if s == "" || err != nil {
		return 0
	}
	return n
}

// parseTenant reads a tenant as JSON, which is how the file's mapping arrives here too.
func parseTenant(s string) (TenantSpec, error) {
	var t TenantSpec
	d := json.NewDecoder(bytes.NewReader([]byte(s)))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			err = errors.New("it is no JSON") // the error would quote what is there
		}
		return t, fmt.Errorf("a tenant has name, users (name, role, password_hash or nkey), uids and quotas (device, floor, soft, hard, weight): %w", err)
	}
	for _, q := range t.Quotas {
		if !schemas.ValidToken(q.Device) {
			return t, fmt.Errorf("tenant %s: a quota is on a device, not on %q", t.Name, q.Device)
		}
	}
	return t, nil
}

// showTenant is the tenant as parseTenant reads it.
func showTenant(t TenantSpec) string {
	b, err := json.Marshal(t)
	if err != nil {
		return t.Name
	}
	return string(b)
}

// Accounts is who may connect to the server, nil where no tenants are configured.
func (c *Config) Accounts() *accounts.Config {
	if len(c.Tenants) == 0 {
		return nil
	}
	a := &accounts.Config{}
	for _, t := range c.Tenants {
		to := accounts.Tenant{Name: t.Name}
		for _, u := range t.Users {
			to.Users = append(to.Users, accounts.User{Name: u.Name, PasswordHash: u.PasswordHash, NKey: u.NKey, Role: u.Role})
		}
		a.Tenants = append(a.Tenants, to)
	}
	return a
}

// NATSConfig is the configuration with which a nats-server keeps these tenants apart, and
// lets nodes in as nats_username. The node's password is in it as a hash.
func (c *Config) NATSConfig() (string, error) {
	a := c.Accounts()
	if a == nil {
		return "", errors.New("no tenants are configured: set tenants in the configuration file")
	}
	if c.NATSUsername == "" || c.NATSPassword == "" {
		return "", errors.New("nodes need a user of their own on the server: set nats_username and nats_password")
	}
	hash, err := accounts.Hash(c.NATSPassword)
	if err != nil {
		return "", fmt.Errorf("nats_password: %w", err)
	}
	a.JetStream = c.JetStream
	a.Nodes = []accounts.User{{Name: c.NATSUsername, PasswordHash: hash}}
	if err := a.Validate(); err != nil {
		return "", err
	}
	return a.Text(), nil
}

// prefixes are the subjects of tenants and of their operators, for the bus.
func (c *Config) prefixes() (tenants, operators map[string]string) {
	if len(c.Tenants) == 0 {
		return nil, nil
	}
	tenants, operators = map[string]string{schemas.DefaultTenant: ""}, map[string]string{}
	for _, t := range c.Tenants {
		tenants[t.Name] = schemas.TenantSubject(t.Name, "")
		for _, u := range t.Users {
			if u.Role == schemas.RoleOperator {
				operators[t.Name] = schemas.OperatorSubject(t.Name, "")
			}
		}
	}
	return tenants, operators
}

// tenantNames are all tenants, where any are configured; the nodes' own account is default's.
func (c *Config) tenantNames() (names []string) {
	for _, t := range c.Tenants {
		names = append(names, t.Name)
	}
	if len(names) > 0 && !slices.Contains(names, schemas.DefaultTenant) {
		names = append(names, schemas.DefaultTenant)
	}
	return names
}

// tenantOf says which tenant a user of this machine is; nil where no tenant has users of
// this machine. The node's own user and root are nobody else's.
func (c *Config) tenantOf() func(uint32) (string, bool) {
	of := map[uint32]string{}
	for _, t := range c.Tenants {
		for _, u := range t.UIDs {
			of[u] = t.Name
		}
	}
	if len(of) == 0 {
		return nil
	}
	for _, own := range []uint32{0, uint32(os.Getuid())} {
		if of[own] == "" {
			of[own] = schemas.DefaultTenant
		}
	}
	return func(uid uint32) (string, bool) {
		t, ok := of[uid]
		return t, ok
	}
}

// uidOf is the only user of this machine that a tenant has.
func (c *Config) uidOf() func(string) (uint32, bool) {
	of := map[string]uint32{}
	for _, t := range c.Tenants {
		if len(t.UIDs) == 1 {
			of[t.Name] = t.UIDs[0]
		}
	}
	return func(tenant string) (uint32, bool) {
		u, ok := of[tenant]
		return u, ok
	}
}

// quotasOf are the configured quotas on a device.
func (c *Config) quotasOf(device string) (out []ledger.QuotaChange) {
	for _, t := range c.Tenants {
		for _, q := range t.Quotas {
			if q.Device != device {
				continue
			}
			floor, soft, hard, weight := q.Floor.bytes(), q.Soft.bytes(), q.Hard.bytes(), q.Weight
			out = append(out, ledger.QuotaChange{Tenant: t.Name, Floor: &floor, Soft: &soft, Hard: &hard, Weight: &weight})
		}
	}
	return out
}

func (l *loader) checkTenants(c *Config) (text, fix string) {
	if a := c.Accounts(); a != nil {
		if err := a.Validate(); err != nil {
			return err.Error(), "correct it"
		}
	}
	of := map[uint32]string{}
	for _, t := range c.Tenants {
		for _, u := range t.UIDs {
			if of[u] != "" && of[u] != t.Name {
				return fmt.Sprintf("the user with id %d is in %s and in %s", u, of[u], t.Name), "one uid is one trust domain: leave it in one"
			}
			of[u] = t.Name
		}
	}
	return "", ""
}

// serverTLS is the embedded server's.
func (c *Config) serverTLS() bus.TLSConfig {
	return bus.TLSConfig{Cert: c.TLSCert, Key: c.TLSKey, CA: c.TLSCA, Verify: c.TLSVerify}
}

// ClientTLS is what a connection to the server shows and trusts: the authority of tls_ca
// beside the machine's, and the certificate. nil where nothing is set.
func (c *Config) ClientTLS() (*tls.Config, error) {
	if c.TLSCA == "" && c.TLSCert == "" && c.TLSKey == "" {
		return nil, nil
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, errors.New("tls_cert and tls_key go together: set both or none")
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca: %s has no certificate", c.TLSCA)
		}
	}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("tls_cert: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
