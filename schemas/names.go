package schemas

import "strings"

// Pascal turns a snake_case wire name into PascalCase, as C# clients do: size_bytes
// becomes SizeBytes.
func Pascal(snake string) string {
	var b strings.Builder
	b.Grow(len(snake))
	up := true
	for i := 0; i < len(snake); i++ {
		c := snake[i]
		if c == '_' {
			up = true
			continue
		}
		if up && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		up = false
		b.WriteByte(c)
	}
	return b.String()
}

// Snake is the way back: SizeBytes becomes size_bytes.
func Snake(pascal string) string {
	var b strings.Builder
	b.Grow(len(pascal) + 4)
	for i := 0; i < len(pascal); i++ {
		c := pascal[i]
		if 'A' <= c && c <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}
