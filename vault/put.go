package vault

import (
	"fmt"
	"runtime"
	"slices"
)

// maxInFlight is how many messages with puts wait for their answers at a time. What
// callers put meanwhile gathers and goes together.
const maxInFlight = 4

// queued is one entry on its way into a message.
type queued struct {
	entry wireEntry
	fd    int
	put   *put
}

// put is one caller of Put.
type put struct {
	left int // entries without an answer
	err  error
	done chan struct{}
}

// Put implements Keeper.
func (c *Client) Put(entries ...Entry) error {
	if err := checkEntries(entries); err != nil || len(entries) == 0 {
		return err
	}
	c.cfg.Crash("vault.put.before")
	p := &put{left: len(entries), done: make(chan struct{})}
	c.mu.Lock()
	if c.err == nil && c.held+len(entries) > c.capacity {
		held := c.held
		c.mu.Unlock()
		return fmt.Errorf("put %d entries beside %d: %w", len(entries), held, ErrFull)
	}
	c.held += len(entries)
	for _, e := range entries {
		c.queue = append(c.queue, queued{wireEntry{ID: e.ID, Label: e.Label}, int(e.File.Fd()), p})
	}
	c.pump()
	c.mu.Unlock()
	<-p.done
	runtime.KeepAlive(entries) // the files stay open until here
	if p.err != nil {
		return p.err
	}
	c.cfg.Crash("vault.put.after")
	return nil
}

// pump sends what the window allows. mu is held.
func (c *Client) pump() {
	if c.err != nil {
		c.failQueue()
		return
	}
	for c.inFlight < maxInFlight && len(c.queue) > 0 {
		n := min(len(c.queue), maxBatch)
		batch := slices.Clone(c.queue[:n])
		c.queue = slices.Delete(c.queue, 0, n)
		m := &message{Type: typePut, Entries: make([]wireEntry, n)}
		fds := make([]int, n)
		for i, q := range batch {
			m.Entries[i], fds[i] = q.entry, q.fd
		}
		c.inFlight++
		c.call(m, fds, func(answer *message, err error) { c.answered(batch, answer, err) })
	}
}

// answered settles a batch with its callers. mu is held.
func (c *Client) answered(batch []queued, answer *message, err error) {
	c.inFlight--
	for _, q := range batch {
		e := err
		if e == nil && slices.Contains(answer.IDs, q.entry.ID) {
			e = ErrExists
		}
		c.settle(q, e)
	}
	c.pump()
}

func (c *Client) settle(q queued, err error) {
	if err != nil {
		c.held--
		if q.put.err == nil {
			q.put.err = fmt.Errorf("vault: put %d: %w", q.entry.ID, err)
		}
	}
	if q.put.left--; q.put.left == 0 {
		close(q.put.done)
	}
}

// failQueue answers what was never sent. mu is held.
func (c *Client) failQueue() {
	for _, q := range c.queue {
		c.settle(q, c.err)
	}
	c.queue = nil
}
