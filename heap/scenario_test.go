package heap

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// The scripts in testdata/scenarios read as the specification of the placement
// policy. Run with -rewrite to write the golden output anew.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		var s script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.run(t, d)
			if s.h != nil {
				if err := s.h.Check(); err != nil {
					d.Fatalf(t, "%v", err)
				}
			}
			if out == "" {
				return "ok\n"
			}
			return out
		})
	})
}

// script is the state of one file: commands are named like the heap's methods.
type script struct {
	h    *Heap
	next SegmentID
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	if d.Cmd == "new" {
		s.next = 0
		s.h = New(Config{GranularityBytes: arg(t, d, "granularity", 0), MaxSegmentBytes: arg(t, d, "max-segment", 0)})
		return ""
	}
	id := SegmentID(arg(t, d, "id", 0))
	size, align := arg(t, d, "size", 0), arg(t, d, "align", 0)
	owner := ""
	d.MaybeScanArgs(t, "owner", &owner)
	switch d.Cmd {
	case "add":
		for range arg(t, d, "count", 1) {
			s.next++
			s.h.Add(s.next, size, owner, !d.HasArg("dirty"))
		}
	case "place":
		return s.place(s.h.Place(owner, size, align))
	case "grant": // Place, then what a device actor does about it
		p := s.h.Place(owner, size, align)
		blocks, err := grantOne(s.h, &s.next, owner, size, align)
		if err != nil {
			return err.Error() + "\n"
		}
		out := p.Kind.String()
		if p.NeedsClear {
			out += ", cleared"
		}
		out += "\n"
		for _, b := range blocks {
			out += s.block(b)
		}
		return out
	case "alloc":
		b, err := s.h.Alloc(id, size, align)
		return s.granted(b, err)
	case "alloc-whole":
		b, err := s.h.AllocWhole(id, size)
		return s.granted(b, err)
	case "restore":
		if err := s.h.Restore(Block{Segment: id, Offset: arg(t, d, "offset", 0), Bytes: size}); err != nil {
			return err.Error() + "\n"
		}
	case "free":
		if s.h.Free(Block{Segment: id, Offset: arg(t, d, "offset", 0), Bytes: size}) {
			return fmt.Sprintf("segment %d is empty\n", id)
		}
	case "take":
		s.h.Take(id, owner)
	case "pool":
		s.h.Pool(id)
	case "mark-clean":
		s.h.MarkClean(id)
	case "set-aside":
		s.h.SetAside(id)
	case "remove":
		s.h.Remove(id)
	case "needs-clear":
		return fmt.Sprintln(s.h.NeedsClear(id, owner))
	case "idle":
		return fmt.Sprintln(s.h.Idle(size))
	case "idle-of":
		return fmt.Sprintln(s.h.IdleOf(size))
	case "dirty":
		if id, ok := s.h.Dirty(); ok {
			return fmt.Sprintf("segment %d\n", id)
		}
		return "none\n"
	case "stats":
		st := s.h.Stats()
		return fmt.Sprintf("segments %d: %s = used %s + slack %s + pooled %s\nfree ranges %d, largest %s, fragmentation %.1f %%, internal waste %s\n",
			st.Segments, bytes(st.SegmentBytes), bytes(st.UsedBytes), bytes(st.SlackBytes), bytes(st.PooledBytes),
			st.FreeBlocks, bytes(st.LargestFree), st.FragmentationPercentage, bytes(st.InternalWaste))
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	return ""
}

func (s *script) place(p Placement) string {
	var b strings.Builder
	fmt.Fprint(&b, p.Kind)
	if p.Kind != Create {
		fmt.Fprintf(&b, " segment %d", p.Segment)
		for _, id := range p.More {
			fmt.Fprintf(&b, ", %d", id)
		}
	}
	for _, n := range p.Create {
		fmt.Fprintf(&b, ", make %s", bytes(n))
	}
	fmt.Fprintf(&b, ": %s", bytes(p.BlockBytes))
	if p.Whole {
		b.WriteString(", whole")
	}
	if p.NeedsClear {
		b.WriteString(", needs clearing")
	}
	return strings.Replace(b.String(), "Create,", "Create", 1) + "\n"
}

func (s *script) granted(b Block, err error) string {
	if err != nil {
		return err.Error() + "\n"
	}
	return s.block(b)
}

func (s *script) block(b Block) string {
	info, _ := s.h.Segment(b.Segment)
	return fmt.Sprintf("segment %d (%s of %s) at %s: %s\n", b.Segment, bytes(info.Bytes), info.Owner, bytes(b.Offset), bytes(b.Bytes))
}

// bytes writes a size the way that arg reads it.
func bytes(n int64) string {
	for _, u := range []struct {
		name string
		n    int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n != 0 && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func arg(t *testing.T, d *datadriven.TestData, key string, absent int64) int64 {
	if !d.HasArg(key) {
		return absent
	}
	text := ""
	d.ScanArgs(t, key, &text)
	total := int64(0)
	for part := range strings.SplitSeq(text, "+") {
		unit := int64(1)
		for name, n := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
			if rest, ok := strings.CutSuffix(part, name); ok {
				part, unit = rest, n
			}
		}
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil {
			d.Fatalf(t, "%s: %v", key, err)
		}
		total += n * unit
	}
	return total
}
