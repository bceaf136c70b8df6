package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
)

// value reads and shows one field of a Config as text. What show returns, set reads
// back to the same. A list has any number of texts, everything else one.
type value struct {
	set  func(c *Config, texts []string) error
	show func(c *Config) []string
}

// scalar makes the value of a field that is one text.
func scalar[T any](field func(*Config) *T, parse func(string) (T, error), format func(T) string) value {
	return value{
		set: func(c *Config, texts []string) error {
			if len(texts) != 1 {
				return fmt.Errorf("is given %d times: it has one value", len(texts))
			}
			v, err := parse(texts[0])
			if err == nil {
				*field(c) = v
			}
			return err
		},
		show: func(c *Config) []string { return []string{format(*field(c))} },
	}
}

// list makes the value of a field that is any number of texts.
func list[T any](field func(*Config) *[]T, parse func(string) (T, error), format func(T) string) value {
	return value{
		set: func(c *Config, texts []string) error {
			items := make([]T, 0, len(texts))
			for _, text := range texts {
				item, err := parse(text)
				if err != nil {
					return err
				}
				items = append(items, item)
			}
			*field(c) = items
			return nil
		},
		show: func(c *Config) []string {
			texts := []string{}
			for _, item := range *field(c) {
				texts = append(texts, format(item))
			}
			return texts
		},
	}
}

func text(field func(*Config) *string, check func(string) error) value {
	return scalar(field, func(s string) (string, error) {
		if check != nil {
			return s, check(s)
		}
		return s, nil
	}, same)
}

// off is how a setting is turned off that otherwise is a text.
const off = "off"

// offOr makes "off" of a text mean "", and checks what is not.
func (v value) offOr(check func(string) error) value {
	return value{
		set: func(c *Config, texts []string) error {
			if len(texts) == 1 {
				switch {
				case strings.EqualFold(texts[0], off):
					texts = []string{""}
				default:
					if err := check(texts[0]); err != nil {
						return err
					}
				}
			}
			return v.set(c, texts)
		},
		show: func(c *Config) []string {
			texts := v.show(c)
			if len(texts) == 1 && texts[0] == "" {
				return []string{off}
			}
			return texts
		},
	}
}

// path is a text that names a file or a folder by an absolute path; "" is none.
func path(field func(*Config) *string) value {
	return scalar(field, func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return absolute(s)
	}, same)
}

func absolute(s string) (string, error) {
	if strings.IndexByte(s, 0) >= 0 || !filepath.IsAbs(s) {
		return "", fmt.Errorf("%q is not an absolute path: begin it with /", s)
	}
	return filepath.Clean(s), nil
}

func flag(field func(*Config) *bool) value { return scalar(field, parseBool, strconv.FormatBool) }

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

// size is a number of bytes of at least least.
func size(field func(*Config) *int64, least int64) value {
	return scalar(field, func(s string) (int64, error) {
		n, err := ParseSize(s)
		if err == nil && n < least {
			err = fmt.Errorf("%s is too small: give at least %s", s, ExactSize(least))
		}
		return n, err
	}, ExactSize)
}

func duration(field func(*Config) *time.Duration, least, most time.Duration) value {
	return scalar(field, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%q is not a duration: write a number with a unit, such as 250ms, 10s or 24h", s)
		case d < least || d > most:
			return 0, fmt.Errorf("%s is not from %s to %s", s, least, most)
		}
		return d, nil
	}, time.Duration.String)
}

func count(field func(*Config) *int, least, most int) value {
	return scalar(field, func(s string) (int, error) {
		n, err := strconv.Atoi(strings.ReplaceAll(s, "_", ""))
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("%q is not a whole number from %d to %d", s, least, most)
		}
		return n, nil
	}, strconv.Itoa)
}

// LogFormat is how records are written.
type LogFormat uint8

// The formats of records.
const (
	LogText LogFormat = iota
	LogJSON
)

// String is the format's name.
func (f LogFormat) String() string {
	if f == LogJSON {
		return "json"
	}
	return "text"
}

// oneOf is a text out of a few, in any letter case.
func oneOf[T any](field func(*Config) *T, format func(T) string, choices ...T) value {
	return scalar(field, func(s string) (T, error) {
		var names []string
		for _, c := range choices {
			if strings.EqualFold(format(c), s) {
				return c, nil
			}
			names = append(names, format(c))
		}
		var zero T
		return zero, fmt.Errorf("%q is unknown: choose %s", s, strings.Join(names, ", "))
	}, format)
}

func logLevel(l slog.Level) string { return strings.ToLower(l.String()) }

func onOff(off bool) string {
	if off {
		return "off"
	}
	return "on"
}

// threshold is "ENTER/LEAVE" in percent of the limit; LEAVE alone has a default, below points under ENTER.
func threshold(field func(*Config) *pressure.Threshold, below float64) value {
	percent := func(s string) (float64, error) {
		n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(s), "%"), 64)
		if err != nil || !(n > 0 && n <= 100) {
			return 0, fmt.Errorf("%q is not a percentage above 0 and up to 100", s)
		}
		return n, nil
	}
	return scalar(field, func(s string) (pressure.Threshold, error) {
		enterText, leaveText, both := strings.Cut(s, "/")
		enter, err := percent(enterText)
		if err != nil {
			return pressure.Threshold{}, err
		}
		leave := enter - below
		if both {
			if leave, err = percent(leaveText); err != nil {
				return pressure.Threshold{}, err
			}
		}
		if leave >= enter || leave <= 0 {
			return pressure.Threshold{}, fmt.Errorf("%q: a level must be left below where it is entered, and above 0", s)
		}
		return pressure.Threshold{Enter: enter / 100, Leave: leave / 100}, nil
	}, func(t pressure.Threshold) string { return showPercent(t.Enter) + "/" + showPercent(t.Leave) })
}

// showPercent writes a share as the shortest percentage that reads back to it.
func showPercent(share float64) string {
	for digits := range 17 {
		s := strconv.FormatFloat(share*100, 'f', digits, 64)
		if n, err := strconv.ParseFloat(s, 64); err == nil && n/100 == share {
			return s
		}
	}
	return strconv.FormatFloat(share*100, 'g', -1, 64)
}

func parseWarm(s string) (ledger.WarmClass, error) {
	bytes, keep, ok := strings.Cut(s, ":")
	if !ok {
		return ledger.WarmClass{}, fmt.Errorf("warm class %q: write it as SIZE:COUNT, such as 1MiB:64", s)
	}
	n, err := ParseSize(bytes)
	if err != nil {
		return ledger.WarmClass{}, fmt.Errorf("warm class %q: %w", s, err)
	}
	k, err := strconv.Atoi(strings.TrimSpace(keep))
	if err != nil || k < 0 || k > 1<<20 {
		return ledger.WarmClass{}, fmt.Errorf("warm class %q: the count is a whole number from 0 to %d", s, 1<<20)
	}
	if n < 1<<20 || n&(n-1) != 0 {
		return ledger.WarmClass{}, fmt.Errorf("warm class %q: the size is a power of two of at least 1MiB", s)
	}
	return ledger.WarmClass{Bytes: n, Keep: k}, nil
}

func showWarm(w ledger.WarmClass) string { return ExactSize(w.Bytes) + ":" + strconv.Itoa(w.Keep) }

func parseUID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a user id: give the number that `id -u NAME` prints", s)
	}
	return uint32(n), nil
}

func showUID(u uint32) string { return strconv.FormatUint(uint64(u), 10) }

func nodeName(s string) error {
	if !schemas.ValidToken(s) {
		return fmt.Errorf("%q cannot be a node's name: use 1 to 63 lower-case letters, digits and dashes, beginning and ending with no dash; %q would do",
			s, Token(s))
	}
	return nil
}

var errEmptyURL = errors.New("has an empty server between its commas")

var errUserInURL = errors.New("it names a user, and URLs are shown in logs: set nats_username and nats_password instead")

// natsURL accepts what the client library connects to: host, host:port or a URL of its schemes.
func natsURL(s string) error {
	if s == "" {
		return nil
	}
	for server := range strings.SplitSeq(s, ",") {
		server = strings.TrimSpace(server)
		if server == "" {
			return errEmptyURL
		}
		if strings.Contains(server, "@") { // shown in logs and to sessions; the error must not show it either
			return errUserInURL
		}
		scheme, _, ok := strings.Cut(server, "://")
		if ok && scheme != "nats" && scheme != "tls" && scheme != "ws" && scheme != "wss" {
			return fmt.Errorf("%q: the scheme of a NATS server is nats, tls, ws or wss, as in nats://127.0.0.1:4222", server)
		}
		if strings.ContainsAny(server, " \t\n") {
			return fmt.Errorf("%q is not a server's address: write it as nats://HOST:PORT", server)
		}
	}
	return nil
}

func same(s string) string { return s }
