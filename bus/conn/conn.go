package conn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// Settings of every connection that the bus makes.
const (
	// A server that is busy may take seconds to check a password: its hash is meant to be slow.
	connTimeout      = 10 * time.Second
	connTries        = 4
	connPing         = 5 * time.Second
	connPingsOut     = 2
	reconnectWait    = 250 * time.Millisecond
	reconnectJitter  = 100 * time.Millisecond
	reconnectBuffer  = 4 << 20
	subPendingMsgs   = 16384
	subPendingBytes  = 32 << 20
	asyncConnBacklog = 16 << 20
)

// Config describes connections to one NATS server.
type Config struct {
	// InProcess is an embedded server to reach without the network; nil uses URL.
	InProcess nats.InProcessConnProvider
	// URL is an existing server, or several separated by commas.
	URL string
	// CredentialsFile is a NATS .creds file (JWT and seed); "" shows none.
	CredentialsFile string
	// NKeyFile holds the seed of a user's nkey; "" shows none.
	NKeyFile string
	// Username and Password are shown if set, and there is no NKeyFile.
	Username, Password string
	// TLS is used if set; a tls:// URL needs none unless it has a private authority.
	TLS *tls.Config
	// Name tells people which connection this is (`nats server report connections`).
	Name string
	// InboxPrefix is for servers whose permissions give each client a private
	// inbox; "" is _INBOX.
	InboxPrefix string
	// Urgent is for few messages that must leave at once: none waits to share a write
	// with others, at twice the cost for many.
	Urgent bool
	// Notify, if set, is told what happens to the connection, in order, from one
	// goroutine of the connection; it must not block.
	Notify func(Event)
	// Log, if set, gets the same.
	Log *slog.Logger
}

var errNoSeed = errors.New("the file has no readable seed of a user's nkey")

// Kind is the class of a Event.
type Kind uint8

// What happens to a connection.
const (
	Failed          Kind = iota // an error of no other class
	Lost                        // reconnecting has begun
	Restored                    // connected again, subscriptions are in force
	Closed                      // for good
	PublishDenied               // the server's permissions forbid to publish to Subject
	ReplyDenied                 // they forbid to name Subject as where to answer
	SubscribeDenied             // they forbid to subscribe to Subject
	ConsumerTooSlow             // messages for Subject were dropped on this side
	kindEnd                     // keeps the names complete
)

var kindNames = [kindEnd]string{"failed", "lost", "restored", "closed", "publish_denied", "reply_denied",
	"subscribe_denied", "consumer_too_slow"}

// String is the kind as logs write it.
func (k Kind) String() string {
	if k >= kindEnd {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// Event is something that happened to a connection outside of any call. It
// is an error.
type Event struct {
	Kind Kind
	// Subject is the one concerned, "" where none is.
	Subject string
	Err     error
}

// Error implements error.
func (e Event) Error() string {
	s := "nats connection " + e.Kind.String()
	if e.Subject != "" {
		s += " on " + e.Subject
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap is what nats.go said.
func (e Event) Unwrap() error { return e.Err }

// ConnectError says why no connection was made and what to do about it.
type ConnectError struct {
	Target string
	Fix    string
	Err    error
}

// Error is the cause followed by the fix.
func (e *ConnectError) Error() string {
	return fmt.Sprintf("nats %s: %v: %s", e.Target, e.Err, e.Fix)
}

// Unwrap is the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// NoServer tells that nobody answered, or that who did was gone before we were in, as a server
// is that has just been killed; else it was a server that did not take us.
func (e *ConnectError) NoServer() bool { return noServer(e.Err) || e.Fix == goneFix }

func noServer(err error) bool {
	return errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout)
}

// Dial makes one connection. The first attempt must succeed (a *ConnectError
// otherwise); after that it reconnects for ever. Publishing on it never waits for
// the network: over TCP, what the server does not take is buffered up to 16 MiB,
// then the connection is given up and made anew.
func Dial(c Config) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(c.Name),
		nats.Timeout(connTimeout),
		nats.PingInterval(connPing), nats.MaxPingsOutstanding(connPingsOut),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectBufSize(reconnectBuffer),
		nats.PermissionErrOnSubscribe(true),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) { c.notify(Classify(subjectOf(sub), err)) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() { // what we close ourselves is not made anew
				c.notify(Event{Kind: Lost, Err: err})
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { c.notify(Event{Kind: Restored}) }),
		nats.ClosedHandler(func(nc *nats.Conn) { c.notify(Event{Kind: Closed, Err: nc.LastError()}) }),
	}
	if c.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(c.InboxPrefix))
	}
	target := withoutUsers(c.URL)
	if c.InProcess != nil {
		target = "in process"
		opts = append(opts, nats.InProcessServer(asyncProvider{c.InProcess, !c.Urgent}))
	} else {
		opts = append(opts, nats.SetCustomDialer(asyncDialer{&net.Dialer{Timeout: connTimeout}, !c.Urgent}))
	}
	if c.Urgent {
		opts = append(opts, nats.WriteBufferSize(1)) // Publish writes, and wakes no flusher first
	}
	if c.Username != "" && c.NKeyFile == "" {
		opts = append(opts, nats.UserInfo(c.Username, c.Password))
	}
	if c.NKeyFile != "" {
		o, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil { // what the library says may quote the file
			return nil, &ConnectError{Target: target, Fix: "correct --nats-nkey: the file has a line SU…, as `nk -gen user` makes it", Err: errNoSeed}
		}
		opts = append(opts, o)
	}
	if c.CredentialsFile != "" {
		opts = append(opts, nats.UserCredentials(c.CredentialsFile))
	}
	if c.TLS != nil {
		opts = append(opts, nats.Secure(c.TLS))
	}
	nc, err := nats.Connect(c.URL, opts...)
	// A server that is slow to check who comes asks for a sign of life meanwhile, which the
	// library takes for a breach.
	for try := 1; try < connTries && err != nil && strings.Contains(err.Error(), "expected 'PONG', got 'PING'"); try++ {
		nc, err = nats.Connect(c.URL, opts...)
	}
	if err != nil {
		return nil, &ConnectError{Target: target, Fix: connectFix(err, c.TLS != nil), Err: err}
	}
	return nc, nil
}

// withoutUsers are URLs without the names and passwords that are in them.
func withoutUsers(urls string) string {
	all := strings.Split(urls, ",")
	for i, u := range all {
		scheme, rest, ok := strings.Cut(u, "://")
		if !ok {
			scheme, rest = "", u
		} else {
			scheme += "://"
		}
		all[i] = scheme + rest[strings.LastIndex(rest, "@")+1:]
	}
	return strings.Join(all, ",")
}

const goneFix = "who answered there went away again: start the server, or correct its URL"

const tlsFix = "correct the TLS settings: the server's certificate and ours must be of authorities that the other knows"

// connectFix says what to do about an error; secured tells whether we came with TLS.
func connectFix(err error, secured bool) string {
	var unknown *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var told *net.OpError
	switch {
	case errors.As(err, &told) && told.Op == "remote error", errors.As(err, &plain): // TLS's word for what the other side says
		return tlsFix
	case noServer(err):
		return "no server answers there: start one (`isobar run` brings its own), or correct its URL"
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return "the server refuses these credentials: correct the credentials file, or the user and password"
	case errors.As(err, &unknown), errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrTLS):
		return tlsFix
	case secured && ended(err):
		// It looks at our certificate after the handshake is done for us, and may be gone before we
		// have read its word for what it saw.
		return tlsFix
	case ended(err):
		return goneFix
	}
	return "correct the URL and the credentials"
}

// ended tells whether the other side has gone.
func ended(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (c Config) notify(e Event) {
	if c.Log != nil {
		e.LogTo(c.Log, c.Name)
	}
	if c.Notify != nil {
		c.Notify(e)
	}
}

// LogTo writes the event of the connection of that name.
func (e Event) LogTo(log *slog.Logger, name string) {
	level := slog.LevelWarn
	switch {
	case e.Kind == Restored:
		level = slog.LevelInfo
	case e.Kind == Closed && e.Err == nil: // by us, at our end
		level = slog.LevelDebug
	}
	log.Log(context.Background(), level, e.Error(), "connection", name, "kind", e.Kind.String(), "subject", e.Subject)
}

func subjectOf(sub *nats.Subscription) string {
	if sub == nil {
		return ""
	}
	return sub.Subject
}

// Classify gives what a connection reports, about subject where it is about one, a type. A
// denied publish would otherwise show as a timeout only.
func Classify(subject string, err error) Event {
	e := Event{Kind: Failed, Subject: subject, Err: err}
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		e.Kind = ConsumerTooSlow
	case errors.Is(err, nats.ErrPermissionViolation):
		text := err.Error()
		for _, d := range []struct {
			phrase string
			kind   Kind
		}{{"for Publish to ", PublishDenied}, {"for Publish with Reply of ", ReplyDenied}, {"for Subscription to ", SubscribeDenied}} {
			if _, rest, ok := cutFold(text, d.phrase); ok {
				e.Kind = d.kind
				e.Subject = quoted(rest)
				break
			}
		}
	}
	return e
}

func cutFold(s, sep string) (before, after string, found bool) {
	i := strings.Index(strings.ToLower(s), strings.ToLower(sep))
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// quoted is the first quoted word of s.
func quoted(s string) string {
	_, s, ok := strings.Cut(s, `"`)
	if !ok {
		return ""
	}
	s, _, _ = strings.Cut(s, `"`)
	return s
}
