package codec

import "unicode/utf8"

// GuardJSON reports whether b is exactly one JSON value (RFC 8259), at most MaxDepth
// arrays and objects deep, with strings that are UTF-8 and whose escapes make whole
// characters. It allocates nothing unless it fails.
func GuardJSON(b []byte) error {
	s := jsonScanner{b: b}
	s.space()
	if !s.value(0) {
		return &SyntaxError{s.at, s.reason()}
	}
	s.space()
	if s.at != len(b) {
		return &SyntaxError{s.at, "something follows the value"}
	}
	return nil
}

// jsonScanner checks JSON. When a method returns false, at is where it went wrong.
type jsonScanner struct {
	b   []byte
	at  int
	why string
}

func (s *jsonScanner) reason() string {
	switch {
	case s.why != "":
		return s.why
	case s.at >= len(s.b):
		return "the value is cut off"
	}
	return "not JSON"
}

func (s *jsonScanner) fail(why string) bool {
	s.why = why
	return false
}

func (s *jsonScanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\n', '\t', '\r':
			s.at++
		default:
			return
		}
	}
}

// take consumes c and reports whether it was next.
func (s *jsonScanner) take(c byte) bool {
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *jsonScanner) value(depth int) bool {
	if s.at >= len(s.b) {
		return false
	}
	switch c := s.b[s.at]; {
	case c == '"':
		return s.string()
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return false
}

func (s *jsonScanner) object(depth int) bool {
	if depth == MaxDepth {
		return s.fail("nested too deep")
	}
	s.at++
	s.space()
	if s.take('}') {
		return true
	}
	for {
		if s.at >= len(s.b) || s.b[s.at] != '"' || !s.string() {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		if !s.value(depth + 1) {
			return false
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

func (s *jsonScanner) array(depth int) bool {
	if depth == MaxDepth {
		return s.fail("nested too deep")
	}
	s.at++
	s.space()
	if s.take(']') {
		return true
	}
	for {
		if !s.value(depth + 1) {
			return false
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

func (s *jsonScanner) literal(word string) bool {
	if len(s.b)-s.at < len(word) || string(s.b[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

func (s *jsonScanner) digits() bool {
	start := s.at
	for s.at < len(s.b) && '0' <= s.b[s.at] && s.b[s.at] <= '9' {
		s.at++
	}
	return s.at > start
}

func (s *jsonScanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

func (s *jsonScanner) string() bool {
	s.at++
	for {
		at := s.at
		for at < len(s.b) && plain[s.b[at]] {
			at++
		}
		s.at = at
		if at == len(s.b) {
			return false
		}
		switch c := s.b[at]; {
		case c == '"':
			s.at++
			return true
		case c == '\\':
			if !s.escape() {
				return false
			}
		case c < ' ':
			return s.fail("a control character in a string")
		default:
			r, n := utf8.DecodeRune(s.b[at:])
			if r == utf8.RuneError && n == 1 {
				return s.fail("a string is not UTF-8")
			}
			s.at += n
		}
	}
}

func (s *jsonScanner) escape() bool {
	if s.at+1 >= len(s.b) {
		s.at = len(s.b)
		return false
	}
	switch s.b[s.at+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at += 2
		return true
	case 'u':
		hi, ok := hex4(s.b[s.at+2:])
		if !ok {
			return s.fail("a broken escape")
		}
		if hi < 0xd800 || hi > 0xdfff {
			s.at += 6
			return true
		}
		if rest := s.b[s.at+6:]; hi < 0xdc00 && len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' {
			if lo, ok := hex4(rest[2:]); ok && lo >= 0xdc00 && lo <= 0xdfff {
				s.at += 12
				return true
			}
		}
		return s.fail("half a character in an escape")
	}
	return s.fail("a broken escape")
}

// hex4 reads four hexadecimal digits.
func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
