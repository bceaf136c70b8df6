package tenancy

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// authority signs certificates, in files as an administrator has them.
type authority struct {
	dir, file string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key, a.file, _ = a.make(t, name, nil)
	return a
}

// issue makes a certificate for this machine and its key.
func (a *authority) issue(t *testing.T, name string, use x509.ExtKeyUsage) (cert, key string) {
	t.Helper()
	_, _, cert, key = a.make(t, name, &use)
	return cert, key
}

func (a *authority) make(t *testing.T, name string, use *x509.ExtKeyUsage) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true}
	parent, signer := c, key
	if use == nil {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	} else {
		c.KeyUsage, c.ExtKeyUsage, c.IPAddresses = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{*use}, []net.IP{net.IPv4(127, 0, 0, 1)}
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(suffix, kind string, b []byte) string {
		file := filepath.Join(a.dir, name+suffix)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return made, key, write(".pem", "CERTIFICATE", der), write("-key.pem", "PRIVATE KEY", secret)
}

// tlsOf is what a client of those files shows and trusts, by the configuration's own code.
func tlsOf(t *testing.T, ca, cert, key string) *tls.Config {
	t.Helper()
	c := node.Config{TLSCA: ca, TLSCert: cert, TLSKey: key}
	out, err := c.ClientTLS()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// recorded logs everything that there is to log.
func recorded(w *logged) nodetest.Option {
	return nodetest.Set(func(c *node.Config) {
		c.Log = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
}

// secretsOf are the lines of files of keys, none of which may be in a log.
func secretsOf(t *testing.T, files ...string) (lines []string) {
	t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// mustNotLog fails the test if one of the secrets was logged, or nothing at all.
func mustNotLog(t *testing.T, log *logged, secrets ...string) {
	t.Helper()
	text := log.String()
	if !strings.Contains(text, "started") {
		t.Errorf("this is no log: %q", text)
	}
	for _, s := range secrets {
		if s == "" || strings.Contains(text, s) {
			t.Errorf("%q is in the log, or nothing", s)
		}
	}
}

// mustTalk gives a command that makes a grant and one that ends it; it returns the claim.
func mustTalk(t *testing.T, o client.Options) string {
	t.Helper()
	o.Attempts = 1
	c, err := client.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Conn().TLSConnectionState(); err != nil {
		t.Errorf("the connection is not encrypted: %v", err)
	}
	var g schemas.AllocateReply
	if code := call(t, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib}, &g); code != "" {
		t.Fatal(code)
	}
	if code := call(t, c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID}, nil); code != "" {
		t.Fatal(code)
	}
	return g.Handle.Claim
}

// mustRefusePlaintext speaks NATS in the clear, and wants to hear nothing but the greeting.
func mustRefusePlaintext(t *testing.T, at string) {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, `"tls_required":true`) {
		t.Errorf("greeted by %q, %v", line, err)
	}
	login := fmt.Sprintf(`CONNECT {"verbose":true,"user":"blue-client","pass":%q}`, secret)
	if _, err := fmt.Fprintf(c, "%s\r\nPING\r\nPUB memory.get_status 2\r\n{}\r\n", login); err != nil {
		t.Log(err) // it may have hung up already
	}
	rest, err := io.ReadAll(r)
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		t.Error("the connection was not ended")
	}
	if bytes.Contains(rest, []byte("PONG")) || bytes.Contains(rest, []byte("+OK")) {
		t.Errorf("answered in the clear: %q", rest)
	}
}

// The embedded server with a certificate: whoever trusts its authority is served, nobody
// else is, and nothing in the clear.
func TestTLSOfTheEmbeddedServer(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	cert, key := ca.issue(t, "server", x509.ExtKeyUsageServerAuth)
	log := &logged{}
	n := nodetest.Start(t, recorded(log), nodetest.Set(func(c *node.Config) {
		c.Tenants, c.TLSCert, c.TLSKey = tenants(), cert, key
	}))
	at := n.Info().URL
	if !strings.HasPrefix(at, "tls://") {
		t.Errorf("clients are told to connect to %s", at)
	}
	as := client.Options{URL: at, Username: "blue-client", Password: secret, InboxPrefix: accounts.InboxPrefix("blue-client"), TLS: tlsOf(t, ca.file, "", "")}
	claim := mustTalk(t, as)
	mustRefusePlaintext(t, at)
	as.TLS = nil
	refused(t, "who does not know the authority", "TLS", as)
	as.TLS = tlsOf(t, other.file, "", "")
	refused(t, "who trusts another authority", "TLS", as)
	mustNotLog(t, log, append(secretsOf(t, key), secret, secretHash, claim)...)
}

// With tls_verify a certificate of the authority is asked for; that alone is a credential, with
// which the server may listen beyond this machine.
func TestTLSOfClients(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	cert, key := ca.issue(t, "server", x509.ExtKeyUsageServerAuth)
	mine, mineKey := ca.issue(t, "client", x509.ExtKeyUsageClientAuth)
	theirs, theirsKey := other.issue(t, "client", x509.ExtKeyUsageClientAuth)
	log := &logged{}
	n := nodetest.Start(t, recorded(log), nodetest.Set(func(c *node.Config) {
		c.TLSCert, c.TLSKey, c.TLSCA, c.TLSVerify = cert, key, ca.file, true
	}))
	at := n.Info().URL
	claim := mustTalk(t, client.Options{URL: at, TLS: tlsOf(t, ca.file, mine, mineKey)})
	refused(t, "who shows no certificate", "TLS", client.Options{URL: at, TLS: tlsOf(t, ca.file, "", "")})
	refused(t, "who shows one of another authority", "TLS", client.Options{URL: at, TLS: tlsOf(t, ca.file, theirs, theirsKey)})
	mustRefusePlaintext(t, at)
	mustNotLog(t, log, append(secretsOf(t, key, mineKey, theirsKey), claim)...)

	s, err := bus.StartServer(bus.ServerConfig{Listen: "0.0.0.0:0", TLS: bus.TLSConfig{Cert: cert, Key: key, CA: ca.file, Verify: true}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err := bus.StartServer(bus.ServerConfig{Listen: "0.0.0.0:0", TLS: bus.TLSConfig{Cert: cert, Key: key, CA: ca.file}}); err == nil {
		s.Close()
		t.Error("TLS alone lets everybody in, and the server listens for everybody")
	}
}

// An external server that encrypts and asks for certificates: a node with the right files
// serves on it; one without says what to correct.
func TestTLSOfAnExternalServer(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key := ca.issue(t, "server", x509.ExtKeyUsageServerAuth)
	mine, mineKey := ca.issue(t, "node", x509.ExtKeyUsageClientAuth)
	at := externalOf(t, tenants(), fmt.Sprintf("tls {\n  cert_file: %q\n  key_file: %q\n  ca_file: %q\n  verify: true\n}\n", cert, key, ca.file))
	log := &logged{}
	login := nodetest.Set(func(c *node.Config) {
		c.Tenants, c.NATSURL, c.NATSUsername, c.NATSPassword = tenants(), at, "node-1", nodeSecret
	})
	nodetest.Start(t, recorded(log), login, nodetest.Set(func(c *node.Config) { c.TLSCA, c.TLSCert, c.TLSKey = ca.file, mine, mineKey }))
	claim := mustTalk(t, client.Options{URL: at, Username: "blue-client", Password: secret, InboxPrefix: accounts.InboxPrefix("blue-client"), TLS: tlsOf(t, ca.file, mine, mineKey)})
	mustRefusePlaintext(t, at)
	mustNotLog(t, log, append(secretsOf(t, mineKey), secret, nodeSecret, nodeHash, claim)...)

	for why, files := range map[string][3]string{"no authority": {}, "no certificate": {ca.file}} {
		c := nodetest.Config(t.TempDir())
		c.NATSURL, c.NATSUsername, c.NATSPassword = at, "node-1", nodeSecret
		c.TLSCA = files[0]
		n, err := node.Open(t.Context(), c, node.Hooks{})
		if err == nil {
			_, _ = n.Stop(t.Context()) // it should not be there
			t.Fatalf("%s: it starts", why)
		}
		if !strings.Contains(err.Error(), "TLS") || strings.Contains(err.Error(), nodeSecret) {
			t.Errorf("%s: %v", why, err)
		}
	}
}
