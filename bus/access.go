package bus

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isobar-project/isobar/bus/accounts"
)

// TLSConfig is the embedded server's TLS: files in PEM. The zero value is none.
type TLSConfig struct {
	// Cert and Key are the server's. CA is the authority of clients' certificates, which
	// Verify asks for.
	Cert, Key, CA string
	Verify        bool
}

// nodeUser is the user as which the node is connected to its own server. The password is
// made anew at each start and leaves the process nowhere.
const nodeUser = "isobar-node"

// admitNode adds the node's own user to the accounts.
func (c ServerConfig) admitNode() (ServerConfig, error) {
	if c.Accounts == nil {
		return c, nil
	}
	a := *c.Accounts
	a.JetStream = c.StoreDir != ""
	a.Nodes = append([]accounts.User(nil), a.Nodes...)
	if c.Username != "" {
		a.Nodes = append(a.Nodes, accounts.User{Name: c.Username, PasswordHash: c.Password, Plain: true})
	}
	own := accounts.User{Name: nodeUser, PasswordHash: rand.Text(), Plain: true}
	a.Nodes = append(a.Nodes, own)
	if err := a.Validate(); err != nil {
		return c, &StartError{Kind: ConfigInvalid, Fix: "correct the tenants and their users", Err: err}
	}
	c.Accounts, c.Username, c.Password = &a, own.Name, own.PasswordHash
	return c, nil
}

// addAccounts has the server read the accounts as an external one would.
func (c ServerConfig) addAccounts(opts *server.Options) error {
	if c.ConfigFile != "" && (len(opts.Accounts) > 0 || len(opts.Users) > 0) {
		return &StartError{Kind: ConfigInvalid, Err: errors.New("accounts are configured twice"),
			Fix: "leave them out of " + c.ConfigFile + " or set no tenants"}
	}
	read := &server.Options{}
	if err := read.ProcessConfigString(c.Accounts.Text()); err != nil {
		return &StartError{Kind: ConfigInvalid, Fix: "correct the tenants and their users", Err: err}
	}
	opts.Accounts, opts.Users, opts.Nkeys = read.Accounts, read.Users, read.Nkeys
	return nil
}

// apply has the server ask for TLS.
func (t TLSConfig) apply(opts *server.Options) error {
	if t == (TLSConfig{}) {
		return nil
	}
	bad := func(err error) error {
		return &StartError{Kind: ConfigInvalid, Fix: "correct tls_cert, tls_key and tls_ca", Err: err}
	}
	if t.Cert == "" || t.Key == "" {
		return bad(errors.New("TLS needs a certificate and its key"))
	}
	if t.Verify && t.CA == "" {
		return bad(errors.New("to verify clients TLS needs the authority of their certificates"))
	}
	c, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: t.Cert, KeyFile: t.Key, CaFile: t.CA, Verify: t.Verify})
	if err != nil {
		return bad(fmt.Errorf("TLS: %w", err))
	}
	opts.TLSConfig, opts.TLS, opts.TLSVerify, opts.TLSTimeout = c, true, t.Verify, 2
	return nil
}
