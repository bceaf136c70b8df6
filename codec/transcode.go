package codec

// raw writes a value that is kept as JSON. What is not one sound JSON value is
// written as null: it cannot come from this package, and a reply must stay readable.
func (e *encoder) raw(dst, b []byte) []byte {
	b = trimSpace(b)
	if GuardJSON(b) != nil {
		return e.null(dst)
	}
	if e.f == JSON {
		return append(dst, b...)
	}
	r := reader{b: b}
	return e.transcode(dst, &r)
}

// transcode writes the guarded value that is next in the encoder's format. Binary and
// extensions, which JSON lacks, become null, and so do numbers that nothing can hold.
func (e *encoder) transcode(dst []byte, r *reader) []byte {
	switch r.kind() {
	case kindNull, kindOther:
		r.skip()
		return e.null(dst)
	case kindBool:
		return e.bool(dst, r.bool())
	case kindString:
		s, _ := r.bytes()
		return e.string(dst, string(s))
	case kindNumber:
		start := r.at
		if n, bad := r.int(); bad == numberOK {
			return e.int(dst, n)
		}
		r.at = start
		x, bad := r.float()
		if bad != numberOK {
			return e.null(dst)
		}
		return e.float(dst, x)
	case kindArray:
		dst = e.openArray(dst, count(r))
		c := r.enter()
		for i := 0; r.more(&c); i++ {
			dst = e.comma(dst, i)
			dst = e.transcode(dst, r)
		}
		return e.closeArray(dst)
	}
	n := count(r)
	dst, fix := e.openObject(dst, n)
	c := r.enter()
	for i := 0; r.more(&c); i++ {
		dst = e.key(dst, string(r.key()), i)
		dst = e.transcode(dst, r)
	}
	return e.closeObject(dst, fix, n)
}

// count says how many items the array or object that is next has.
func count(r *reader) int {
	start, object, n := r.at, r.kind() == kindObject, 0
	c := r.enter()
	for r.more(&c) {
		if object {
			r.key()
		}
		r.skip()
		n++
	}
	r.at = start
	return n
}
