package node

import (
	"slices"
	"strconv"
	"time"
)

// commandLine writes the records of commands as the handlers of log/slog do, byte for byte, for
// a fifth of what it costs those: they come by the ten thousand a second. One goroutine at a
// time may use it.
type commandLine struct {
	second int64 // the latest, in Unix time, and as text without a zone
	stamp  [len("2006-01-02T15:04:05")]byte
}

// lineWords is what stands between the values of a record.
type lineWords struct {
	time, action, requestID, tenant, device, outcome, code, took, end string
	empty                                                             string // an empty string
	wholeNanos                                                        bool   // of times; else milliseconds
}

var (
	textWords = lineWords{"time=", " level=INFO msg=command action=", " request_id=", " tenant=", " device=", " outcome=", " code=", " duration_ms=", "\n", `""`, false}
	jsonWords = lineWords{`{"time":"`, `","level":"INFO","msg":"command","action":"`, `","request_id":"`, `","tenant":"`, `","device":"`, `","outcome":"`, `","code":"`,
		`","duration_ms":`, "}\n", "", true}
)

// append appends the record of an outcome. It reports false, having appended nothing, for
// what is so rare that log/slog may write it: strings to be quoted, times of no second.
func (l *commandLine) append(b []byte, f LogFormat, o *outcome) (_ []byte, ok bool) {
	if !bare(o.action) || !bare(o.requestID) || !bare(o.tenant) || !bare(o.deviceID) || !bare(string(o.code)) || !usual(o.took) || o.at.Location() != time.UTC {
		return b, false
	}
	w := &textWords
	if f == LogJSON {
		w = &jsonWords
	}
	value := func(name, s string) {
		if b = append(b, name...); s == "" {
			s = w.empty
		}
		b = append(b, s...)
	}
	b = l.time(append(b, w.time...), o.at, w.wholeNanos)
	value(w.action, o.action)
	value(w.requestID, o.requestID)
	value(w.tenant, o.tenant)
	value(w.device, o.deviceID)
	value(w.outcome, o.word())
	value(w.code, string(o.code))
	b = millisText(append(b, w.took...), o.took)
	return append(b, w.end...), true
}

// time appends a time of day in UTC.
func (l *commandLine) time(b []byte, t time.Time, wholeNanos bool) []byte {
	if s := t.Unix(); s != l.second || l.stamp[0] == 0 {
		l.second = s
		t.AppendFormat(l.stamp[:0], time.DateOnly+"T"+time.TimeOnly)
	}
	b = append(b, l.stamp[:]...)
	if !wholeNanos {
		return append(fraction(append(b, '.'), t.Nanosecond()/1e6, 3), 'Z')
	}
	if n := t.Nanosecond(); n != 0 {
		b = trimZeros(fraction(append(b, '.'), n, 9))
	}
	return append(b, 'Z')
}

// usual are durations whose milliseconds are written without an exponent.
func usual(d time.Duration) bool { return d >= 100*time.Nanosecond && d < 1000*time.Second }

// millisText appends a usual duration in milliseconds, as the shortest text of that number.
func millisText(b []byte, d time.Duration) []byte {
	b = strconv.AppendInt(b, int64(d/time.Millisecond), 10)
	if rest := int(d % time.Millisecond); rest != 0 {
		b = trimZeros(fraction(append(b, '.'), rest, 6))
	}
	return b
}

// fraction appends a number as so many digits.
func fraction(b []byte, n, digits int) []byte {
	b = slices.Grow(b, digits)[:len(b)+digits]
	for i := range digits {
		b[len(b)-1-i] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// trimZeros takes the zeros off the end.
func trimZeros(b []byte) []byte {
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// bare tells whether neither format quotes a string or escapes something in it.
func bare(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '-' <= c && c <= ':', c == '_': // '-' to ':' are - . / digits :
		default:
			return false
		}
	}
	return true
}
