package fdwire

import (
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// acceptPause is how long nothing is accepted after an error.
const acceptPause = 100 * time.Millisecond

// Accept hands each connection of a listener to admit, on the calling goroutine, until the
// listener is closed; or over, where accepting fails just then. Connections that fail are logged.
func Accept(l *net.UnixListener, c clock.Clock, over <-chan struct{}, log *slog.Logger, admit func(*net.UnixConn) error) {
	for {
		nc, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely, which passes as connections close; not a
			// reason to let go of anybody's memory.
			log.Warn("accept", "error", err)
			if !pause(c, acceptPause, over) {
				return
			}
			continue
		}
		if err := admit(nc); err != nil {
			log.Warn("connection refused", "error", err)
		}
	}
}

// pause waits, and reports false if it is over meanwhile.
func pause(c clock.Clock, d time.Duration, over <-chan struct{}) bool {
	passed := make(chan struct{})
	t := c.AfterFunc(d, func() { close(passed) })
	defer t.Stop()
	select {
	case <-passed:
		return true
	case <-over:
		return false
	}
}
