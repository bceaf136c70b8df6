package actors

import (
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

// Reply answers one command, exactly once. It may be used from any goroutine and never
// blocks. It is declared here, where it is used; bus and stdio implement it.
type Reply interface {
	// Done answers with the action's reply data (a pointer to a schemas type). undo, if
	// not nil, is called once, later and from any goroutine, when it turns out that nobody
	// listened for the answer: what the command granted is then taken back.
	Done(data any, undo func())
	// Fail answers with an error of the contract.
	Fail(err *schemas.Error)
}

// Publisher takes events and publishes them in order, one sequence per subject. It never
// blocks and may be used from any goroutine.
type Publisher interface {
	Publish(e schemas.Event)
}

// Command is one request, decoded and validated in shape; whether the things it names
// exist, and whether their state allows it, is for the actors to say.
type Command struct {
	Action schemas.Action
	Tenant string
	User   string
	// Role is the most that the command may do; the bus has judged the action by it.
	Role schemas.Role
	// RequestID is never empty. Chosen is true where the client chose it: only then
	// can the client retry, so only then is the outcome remembered.
	RequestID string
	Chosen    bool
	// Digest is the sameness of content: sha256 over the decoded, normalised request.
	// Set where Chosen and the action changes something.
	Digest [32]byte
	// Data is a pointer to the action's request type, *schemas.AllocateRequest and so on.
	Data any
	// Lent says that the goroutine that submits the command has nothing better to do than to
	// run the actor that does it, if that actor is idle.
	Lent   bool
	Wait   time.Duration // how long the answer may take; then it is «queued» or «running»
	DryRun bool
	Reply  Reply
	// Arrived is when the command came, 0 if nobody looked.
	Arrived clock.Instant
	// Trace is nil for a command that is not traced.
	Trace *Trace
}

// Desk takes commands. Submit never blocks; it may be called from any goroutine. A node
// too busy to take the command answers BUSY through its Reply.
type Desk interface {
	Submit(c *Command)
}
