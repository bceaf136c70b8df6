package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/accounts"
)

// DefaultListen is where the embedded server listens when nobody says otherwise.
const DefaultListen = "127.0.0.1:4222"

// Limits of the embedded server. They are the node's own: a configuration file
// may lower no guard that the codec relies on.
const (
	// serverMaxPayload is above schemas' 256 KiB, so that a payload which is too
	// large reaches the codec and is answered, where the server would cut the
	// connection.
	serverMaxPayload = 320 << 10
	// serverMaxPending is what one slow reader may leave unread before it is cut off.
	serverMaxPending = 16 << 20
	// serverWriteDeadline bounds one write to a client that stopped reading.
	serverWriteDeadline = 5 * time.Second
	// A vanished host is noticed after serverPing × (serverPingsOut + 1).
	serverPing     = 5 * time.Second
	serverPingsOut = 2
	// serverReady bounds the start: everything is local, so that only a sick
	// disk reaches it.
	serverReady = 10 * time.Second
)

// ServerConfig describes the embedded NATS server.
type ServerConfig struct {
	// Listen is host:port; "" is DefaultListen, port 0 a free port. A host that is
	// not loopback is refused unless clients must show credentials.
	Listen string
	// StoreDir is JetStream's folder, made if absent (mode 0700); "" runs without
	// JetStream: no history of events.
	StoreDir string
	// StoreBytes bounds JetStream's files; 0 is 1 GiB.
	StoreBytes int64
	// Name is the server's name; "" lets the server choose one.
	Name string
	// Username and Password are asked from every client if set.
	Username, Password string
	// ConfigFile is a nats-server configuration file for what this Config has no
	// field for (accounts, permissions, TLS, cluster). Listen, StoreDir and the
	// limits above stay in force.
	ConfigFile string
	// Accounts, if set, is who may connect, and as what; with it nobody else may. The node
	// itself is given a user of its own.
	Accounts *accounts.Config
	// TLS asks for it from everybody who comes over the network.
	TLS TLSConfig
	// Log takes the server's own messages; nil discards them.
	Log *slog.Logger
}

// StartError says why the embedded server did not start and what to do about it.
type StartError struct {
	// Kind is for branching.
	Kind StartErrorKind
	// Fix is one sentence for the person at the terminal.
	Fix string
	Err error
}

// StartErrorKind is the class of a StartError.
type StartErrorKind uint8

// The reasons why a server does not start.
const (
	StartFailed StartErrorKind = iota
	PortTaken
	ListenRefused
	StoreUnwritable
	ConfigInvalid
	StoreTaken
)

// Error is the cause followed by the fix.
func (e *StartError) Error() string {
	if e.Err == nil {
		return "nats server: " + e.Fix
	}
	return fmt.Sprintf("nats server: %v: %s", e.Err, e.Fix)
}

// Unwrap is the cause.
func (e *StartError) Unwrap() error { return e.Err }

// Server is a running embedded NATS server. Its methods may be called from any
// goroutine.
type Server struct {
	srv                *server.Server
	store              *os.File // JetStream's folder, taken; nil without JetStream
	username, password string
}

// StartServer starts the embedded server and returns when it takes connections.
// Errors are *StartError.
func StartServer(c ServerConfig) (*Server, error) {
	c, err := c.admitNode()
	if err != nil {
		return nil, err
	}
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	if err := c.probe(opts); err != nil {
		return nil, err
	}
	s := &Server{username: c.Username, password: c.Password}
	if c.StoreDir != "" {
		if s.store, err = c.takeStore(); err != nil {
			return nil, err
		}
	}
	if err := s.start(c, opts); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// start starts the server, and leaves it to Close to end one that did not come up.
func (s *Server) start(c ServerConfig, opts *server.Options) (err error) {
	if s.srv, err = server.NewServer(opts); err != nil {
		return &StartError{Kind: ConfigInvalid, Fix: "correct the server's configuration", Err: err}
	}
	log := newServerLog(c.Log)
	s.srv.SetLoggerV2(log, false, false, false)
	s.srv.Start()
	if fatal := log.fatal(); fatal != nil {
		return c.explain(opts, fatal)
	}
	if !s.srv.ReadyForConnections(serverReady) {
		return &StartError{Kind: StartFailed, Fix: fmt.Sprintf("not ready after %s: look at the log, or use an existing server with --nats-url", serverReady)}
	}
	return nil
}

func (c ServerConfig) options() (*server.Options, error) {
	opts := &server.Options{}
	if c.ConfigFile != "" {
		o, err := server.ProcessConfigFile(c.ConfigFile)
		if err != nil {
			return nil, &StartError{Kind: ConfigInvalid, Fix: "correct " + c.ConfigFile, Err: err}
		}
		opts = o
	}
	if c.Accounts != nil {
		if err := c.addAccounts(opts); err != nil {
			return nil, err
		}
	}
	if err := c.TLS.apply(opts); err != nil {
		return nil, err
	}
	listen := c.Listen
	if listen == "" {
		listen = DefaultListen
	}
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, &StartError{Kind: ConfigInvalid, Fix: "write --listen as host:port, for example " + DefaultListen, Err: err}
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, &StartError{Kind: ConfigInvalid, Fix: "the port of --listen is a number from 0 (any free port) to 65535", Err: err}
	}
	opts.Host, opts.Port = host, int(port)
	if port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	if c.Username != "" && c.Accounts == nil {
		opts.Username, opts.Password = c.Username, c.Password
	}
	if !loopback(host) && !authenticates(opts) {
		return nil, &StartError{Kind: ListenRefused, Err: fmt.Errorf("%s is not a loopback address", listen),
			Fix: "configure credentials (user and password, or a server configuration file with accounts), or choose --listen " + DefaultListen}
	}
	if c.Name != "" {
		opts.ServerName = c.Name
	}
	opts.NoSigs = true
	opts.NoLog = true
	opts.MaxPayload = serverMaxPayload
	opts.MaxPending = serverMaxPending
	opts.WriteDeadline = serverWriteDeadline
	opts.PingInterval = serverPing
	opts.MaxPingsOut = serverPingsOut
	// A reader that lags by three quarters of MaxPending loses messages (its
	// sequence shows it; the stream has them) instead of stalling the node's replies
	// to everybody else for up to 10 ms a turn.
	opts.NoFastProducerStall = true
	opts.DisableJetStreamBanner = true
	opts.MaxClosedClients = 16 // kept only for the monitoring port, which is not served
	if c.StoreDir != "" {
		opts.JetStream = true
		opts.StoreDir = c.StoreDir
		opts.JetStreamMaxMemory = 16 << 20
		opts.JetStreamMaxStore = c.StoreBytes
		if opts.JetStreamMaxStore == 0 {
			opts.JetStreamMaxStore = 1 << 30
		}
	}
	return opts, nil
}

// probe finds a port that cannot be had before the server is built, while that is still an
// error with a type.
func (c ServerConfig) probe(opts *server.Options) error {
	if opts.Port == server.RANDOM_PORT {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port)))
	if err != nil {
		return c.explain(opts, err)
	}
	if err := l.Close(); err != nil {
		return &StartError{Kind: StartFailed, Fix: "look at the log", Err: err}
	}
	return nil
}

func (c ServerConfig) explain(opts *server.Options, err error) *StartError {
	var path *fs.PathError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &StartError{Kind: PortTaken, Err: err, Fix: fmt.Sprintf(
			"port %d is taken by another process: stop it, or choose --listen 127.0.0.1:0, or use it with --nats-url nats://%s",
			opts.Port, net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port)))}
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EACCES) && !errors.As(err, &path):
		return &StartError{Kind: ListenRefused, Err: err, Fix: "this machine does not let the process listen there: choose --listen " + DefaultListen}
	case errors.As(err, &path):
		if c.StoreDir == "" {
			c.StoreDir = filepath.Dir(path.Path)
		}
		return c.unwritable(err)
	}
	return &StartError{Kind: StartFailed, Err: err, Fix: "look at the log, or use an existing server with --nats-url"}
}

// URL is where clients of this machine connect, with the port that was found
// when port 0 was asked for.
func (s *Server) URL() string { return s.srv.ClientURL() }

// Credentials are what a connection of this process shows to the server, empty
// where it asks for none or where a configuration file says what it asks for.
func (s *Server) Credentials() (username, password string) { return s.username, s.password }

// JetStream tells whether the server keeps streams.
func (s *Server) JetStream() bool { return s.srv.JetStreamEnabled() }

// InProcessConn implements nats.InProcessConnProvider: a connection that
// saves the network. One end is the server's, which serves it at once.
func (s *Server) InProcessConn() (net.Conn, error) { return s.srv.InProcessConn() }

// Close ends the server, its clients' connections and its streams, and returns
// when all of its goroutines are gone. It may be called more than once.
func (s *Server) Close() {
	if s.srv != nil {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
	}
	if s.store != nil {
		_ = s.store.Close() // only now may another server write there
	}
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func authenticates(o *server.Options) bool {
	return o.NoAuthUser == "" && (o.Username != "" || o.Authorization != "" || len(o.Users) > 0 ||
		len(o.Nkeys) > 0 || len(o.TrustedOperators) > 0 || len(o.TrustedKeys) > 0 ||
		o.AuthCallout != nil || o.TLSVerify)
}

var _ nats.InProcessConnProvider = (*Server)(nil)
