package eviction

// keepFloors drops from the choice what a group may not lose: of each group that spare
// names, the first to go stay in it as far as they fit the bytes that it can spare. It
// returns those that are dropped.
func (r *ranking) keepFloors(spare map[string]int64) (kept []int32) {
	if len(spare) == 0 {
		return nil
	}
	r.sort(r.items)
	left := make(map[string]int64, len(spare))
	for group, bytes := range spare {
		left[group] = bytes
	}
	free := r.items[:0]
	for _, x := range r.items {
		c := &r.of[x.index]
		bytes, bounded := left[c.Group]
		if bounded && c.Bytes > bytes {
			kept = append(kept, x.index)
			r.bytes -= x.bytes
			continue
		}
		if bounded {
			left[c.Group] = bytes - c.Bytes
		}
		free = append(free, x)
	}
	r.items, r.count = free, len(free)
	return kept
}
