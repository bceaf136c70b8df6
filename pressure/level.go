package pressure

// Level is how tight memory is.
type Level uint8

// The levels, in order.
const (
	Low Level = iota
	Moderate
	High
	Critical
)

var levelNames = [...]string{"low", "moderate", "high", "critical"}

// String returns the contract's spelling.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return "unknown"
}

// Cause is what brought a change about.
type Cause uint8

// The causes of the contract.
const (
	// CauseGrant: bytes were granted, or a request found no room.
	CauseGrant Cause = iota
	// CauseRelease: bytes were given back. Raises nothing; names a re-evaluation.
	CauseRelease
	// CauseReservation: bytes were promised, or a reservation's tree outgrew it.
	CauseReservation
	// CauseForeign: a sample showed bytes that are not ours.
	CauseForeign
	// CauseLimitChange: the limit or the thresholds moved.
	CauseLimitChange
	// CauseStall: the kernel reports that processes wait for memory.
	CauseStall
	// CauseForecast: foreign growth is about to cross a threshold.
	CauseForecast
	// CauseDwell: the share stayed under the leave threshold. The cause of every fall.
	CauseDwell
	// CauseSourceLost: the outside figures can no longer be read.
	CauseSourceLost
)

var causeNames = [...]string{"grant", "release", "reservation", "foreign", "limit_change", "stall", "forecast", "dwell", "source_lost"}

// String returns the contract's spelling.
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "unknown"
}

// Basis says which bytes count towards the level.
type Basis uint8

const (
	// BasisUsed counts all used bytes, idle models included: somebody who
	// allocates behind our back cannot ask for them.
	BasisUsed Basis = iota
	// BasisUnreclaimable leaves out what unread models hold, for hosts where
	// everybody asks.
	BasisUnreclaimable
)

// String returns the setting's spelling.
func (b Basis) String() string {
	if b == BasisUnreclaimable {
		return "unreclaimable"
	}
	return "used"
}
