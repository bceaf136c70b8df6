package metrics

import (
	"math"
	"strconv"
)

// page is the text format under way.
type page struct{ b []byte }

// family begins a metric. It must be called before its samples.
func (p *page) family(m int) {
	d := &table[m]
	p.b = append(p.b, "# HELP "...)
	p.b = append(p.b, d.Name...)
	p.b = append(p.b, ' ')
	p.b = escape(p.b, d.Help, false)
	p.b = append(p.b, "\n# TYPE "...)
	p.b = append(p.b, d.Name...)
	p.b = append(p.b, ' ')
	p.b = append(p.b, d.Kind...)
	p.b = append(p.b, '\n')
}

// sample writes one line; labels are the values of the metric's labels, in order.
func (p *page) sample(m int, v float64, labels ...string) {
	p.line(m, "", "", v, labels)
}

// only writes a family of one sample.
func (p *page) only(m int, v float64, labels ...string) {
	p.family(m)
	p.sample(m, v, labels...)
}

func (p *page) line(m int, suffix, le string, v float64, labels []string) {
	d := &table[m]
	p.b = append(p.b, d.Name...)
	p.b = append(p.b, suffix...)
	if len(labels) > 0 || le != "" {
		sign := byte('{')
		for i, l := range labels {
			p.label(sign, d.Labels[i], l)
			sign = ','
		}
		if le != "" {
			p.label(sign, "le", le)
		}
		p.b = append(p.b, '}')
	}
	p.b = append(p.b, ' ')
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		p.b = strconv.AppendInt(p.b, int64(v), 10)
	} else {
		p.b = strconv.AppendFloat(p.b, v, 'g', -1, 64)
	}
	p.b = append(p.b, '\n')
}

func (p *page) label(sign byte, name, value string) {
	p.b = append(p.b, sign)
	p.b = append(p.b, name...)
	p.b = append(p.b, `="`...)
	p.b = escape(p.b, value, true)
	p.b = append(p.b, '"')
}

// histogram writes one histogram of a family.
func (p *page) histogram(m int, h *histogram, labels ...string) {
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
		le := "+Inf"
		if i < len(h.scale.labels) {
			le = h.scale.labels[i]
		}
		p.line(m, "_bucket", le, float64(n), labels)
	}
	p.line(m, "_sum", "", float64(h.sum.Load())*h.scale.unit, labels)
	p.line(m, "_count", "", float64(n), labels)
}

// escape is the format's escaping, of help texts or of labels' values.
func escape(b []byte, s string, quotes bool) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			b = append(b, `\\`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '"' && quotes:
			b = append(b, `\"`...)
		default:
			b = append(b, c)
		}
	}
	return b
}
