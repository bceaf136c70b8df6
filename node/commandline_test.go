package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/schemas"
)

// written is what a log of a format has of outcomes, made by log/slog if plain is false.
func written(f LogFormat, plain bool, list []outcome) string {
	var b bytes.Buffer
	c := Config{LogFormat: f}
	h := c.Logger(&b).Handler().(bufferedHandler)
	h.bare = plain
	l := commandLog{log: slog.New(h)}
	l.write(list)
	h.buffer.flush()
	return b.String()
}

// Records of commands are written as log/slog writes them, byte for byte, whatever is in them.
func TestCommandLinesAreThoseOfSlog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-zA-Z0-9./:_-]{1,40}`), rapid.String())
		at := rapid.OneOf(rapid.Int64Range(-1<<40, 1<<61), rapid.Int64Range(0, 1<<28))
		list := make([]outcome, rapid.IntRange(1, 5).Draw(t, "outcomes"))
		for i := range list {
			o := &list[i]
			o.at = time.Unix(0, at.Draw(t, "at")).UTC()
			if rapid.IntRange(0, 9).Draw(t, "whole") == 0 {
				o.at = o.at.Truncate(time.Second)
			}
			if rapid.IntRange(0, 9).Draw(t, "abroad") == 0 {
				o.at = o.at.In(time.FixedZone("", 3600))
			}
			o.action, o.requestID, o.tenant, o.deviceID = word.Draw(t, "action"), word.Draw(t, "id"), word.Draw(t, "tenant"), word.Draw(t, "device")
			o.code = schemas.Code(word.Draw(t, "code"))
			o.took = time.Duration(rapid.OneOf(rapid.Int64Range(-10, 1000), rapid.Int64Range(0, 1<<41), rapid.Int64Range(0, 1e5)).Draw(t, "took")) * rapid.SampledFrom([]time.Duration{1, 10, 1000}).Draw(t, "unit")
		}
		for _, f := range []LogFormat{LogText, LogJSON} {
			if got, want := written(f, true, list), written(f, false, list); got != want {
				t.Fatalf("%s:\n%s\nlog/slog:\n%s", f, got, want)
			}
		}
	})
}

func TestCommandLinesHaveNoneOfWhatIsAdded(t *testing.T) {
	var b bytes.Buffer
	c := Config{}
	l := commandLog{log: c.Logger(&b).With("host", "a")}
	l.write([]outcome{{action: "x", took: time.Millisecond}})
	l.log.Handler().(bufferedHandler).buffer.flush()
	if !bytes.Contains(b.Bytes(), []byte("host=a")) {
		t.Errorf("the log says %q", b.String())
	}
}

func BenchmarkCommandLines(b *testing.B) {
	list := make([]outcome, 128)
	for i := range list {
		list[i] = outcome{at: time.Now().UTC(), action: "allocate", requestID: fmt.Sprint("8c4b8a52-53a4-4a0e-9a7e-1f0c7c1a3", i), tenant: "default", deviceID: "ram-0", took: 1234567}
	}
	for _, plain := range []bool{true, false} {
		b.Run(fmt.Sprintf("own=%t", plain), func(b *testing.B) {
			var sink discard
			c := Config{}
			h := c.Logger(&sink).Handler().(bufferedHandler)
			h.bare = plain
			l := commandLog{log: slog.New(h)}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				l.write(list)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(list)), "ns/record")
		})
	}
}

type discard struct{}

func (*discard) Write(p []byte) (int, error) { return len(p), nil }
