package hostmem

// Level is one constraint above this process: the machine itself or a control
// group with a limit.
type Level struct {
	// Path is the control group's folder, "machine" or "NUMA node 1".
	Path string
	// LimitBytes is what the level may use in all.
	LimitBytes int64
	// UsedBytes is what cannot be taken back from it: for the machine total less
	// available, for a group its usage less the file cache.
	UsedBytes int64
}

// Figures is one reading. All sizes are bytes.
type Figures struct {
	// MemTotal and MemAvailable are the machine's, as in /proc/meminfo, or the node's.
	MemTotal, MemAvailable int64
	// HasCgroup is true when some control group above this process limits it to
	// less than the machine has. The fields below describe the tightest of them.
	HasCgroup bool
	// CgroupLimit is the least limit of all ancestors.
	CgroupLimit int64
	// CgroupCurrent is that group's usage as the kernel counts it, page cache and
	// shared memory included.
	CgroupCurrent int64
	// CgroupFileCache is the part of it that the kernel can drop: pages of files,
	// without shared memory (which the kernel counts as cache too, but which
	// without swap stays).
	CgroupFileCache int64
	// Levels are all constraints, the machine first.
	Levels []Level
}

// PhysicalBytes is the most that can ever be used here: the least of the
// machine's memory and every ancestor's limit.
func (f Figures) PhysicalBytes() int64 {
	p := f.MemTotal
	for _, l := range f.Levels {
		p = min(p, l.LimitBytes)
	}
	return p
}

// OutsideBytes is how much of the first physical bytes others use, when ours of
// what is used is our own; never negative. physical is PhysicalBytes or less,
// where the owner was told to take less.
//
// On a bare machine with physical = MemTotal it is MemTotal - MemAvailable - ours,
// in a control group usage - file cache - ours. With several levels each one says
// how much others use of it; what a level has beyond physical absorbs such use
// first, and the level that then leaves least is the one that counts. So a group
// with room on a machine without any is full, and a roomy group inside a full one
// too.
func (f Figures) OutsideBytes(physical, ours int64) int64 {
	var outside int64
	for _, l := range f.Levels {
		outside = max(outside, l.UsedBytes-ours-(l.LimitBytes-physical))
	}
	return outside
}

// RoomBytes is what can be taken now at every level, never negative.
func (f Figures) RoomBytes() int64 {
	room := f.MemAvailable
	for _, l := range f.Levels {
		room = min(room, l.LimitBytes-l.UsedBytes)
	}
	return max(0, room)
}
