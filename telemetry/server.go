package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/isobar-project/isobar/metrics"
)

// Patience is how long a request waits for the node: less than the 10 s after which
// Prometheus gives up, and than what a probe is usually given.
const Patience = 2 * time.Second

// Limits of what a client may send and how slowly.
const (
	headerBytes   = 8 << 10
	headerTimeout = 5 * time.Second
	writeTimeout  = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Config says where to listen and whom to ask. All functions are required; they are called
// from requests' goroutines with a context of at most Patience.
type Config struct {
	// Listen is HOST:PORT; port 0 is a free one.
	Listen string
	// AllowRemote lets it listen on other addresses than loopback.
	AllowRemote bool
	// Page appends the metrics to b.
	Page func(ctx context.Context, b []byte) []byte
	// Silent names actors that do not answer, NotReady the reasons why work cannot be done.
	Silent, NotReady func(ctx context.Context) []string
	Log              *slog.Logger
}

// Server is a running server. Its methods may be called from any goroutine.
type Server struct {
	cfg  Config
	addr string
	http *http.Server
	done chan struct{}
}

// Serve starts a server; Close ends it. The error says what to do about it.
func Serve(c Config) (*Server, error) {
	if !c.AllowRemote && !Loopback(c.Listen) {
		return nil, fmt.Errorf("%s is not a loopback address, and figures are shown to whoever asks: listen on 127.0.0.1, or allow it with http_remote", c.Listen)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("metrics and probes cannot be served: %w", err)
	}
	s := &Server{cfg: c, addr: l.Addr().String(), done: make(chan struct{})}
	s.http = &http.Server{Handler: s.routes(), ReadHeaderTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug)}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.Log.Error("metrics and probes are served no more", "error", err)
		}
	}()
	return s, nil
}

// Addr is HOST:PORT where it listens.
func (s *Server) Addr() string { return s.addr }

// Close ends the server and every request under way.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// Loopback reports whether only this machine can reach HOST:PORT.
func Loopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", oneAtATime(s.metrics))
	mux.Handle("GET /livez", oneAtATime(func(ctx context.Context, w http.ResponseWriter) {
		report(w, "alive", "does not answer: ", s.cfg.Silent(ctx))
	}))
	mux.Handle("GET /readyz", oneAtATime(func(ctx context.Context, w http.ResponseWriter) {
		report(w, "ready", "not ready: ", s.cfg.NotReady(ctx))
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "isobar: /metrics /livez /readyz\n")
	})
	return mux
}

func (s *Server) metrics(ctx context.Context, w http.ResponseWriter) {
	page := s.cfg.Page(ctx, nil)
	w.Header().Set("Content-Type", metrics.ContentType)
	_, _ = w.Write(page) // who asked may be gone
}

// report answers a probe: wrong is what is wrong.
func report(w http.ResponseWriter, fine, prefix string, wrong []string) {
	if len(wrong) == 0 {
		plain(w, http.StatusOK, fine+"\n")
		return
	}
	plain(w, http.StatusServiceUnavailable, prefix+strings.Join(wrong, "\n"+prefix)+"\n")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// oneAtATime has requests of one path wait for each other, and none longer than Patience.
func oneAtATime(serve func(ctx context.Context, w http.ResponseWriter)) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), Patience)
		defer cancel()
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
			serve(ctx, w)
		case <-ctx.Done():
			plain(w, http.StatusServiceUnavailable, "an earlier request is still being answered\n")
		}
	})
}
