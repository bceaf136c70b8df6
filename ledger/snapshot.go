package ledger

// Snapshot is a grant as it is told, small enough to be remembered with each answer:
// without claims, places and mappers.
func Snapshot(g *Grant) []byte {
	told := *g
	told.Claims, told.Blocks, told.Mappers = nil, nil, nil
	return encodeGrant(make([]byte, 0, 256), &told)
}

// ReadSnapshot reads one back, as a grant that is released.
func ReadSnapshot(b []byte) (*Grant, error) {
	g, err := decodeGrant(b)
	if err != nil {
		return nil, err
	}
	g.Status = StatusReleased
	return g, nil
}
