package codec

import (
	"strings"

	"github.com/isobar-project/isobar/schemas"
)

// Format is how a message is written.
type Format uint8

// The formats. JSON is the default.
const (
	JSON Format = iota
	MsgPack
)

// The names of the headers that choose formats, and their values.
const (
	HeaderContentType = "Content-Type"
	HeaderAccept      = "Accept"

	ContentTypeJSON    = "application/json"
	ContentTypeMsgPack = "application/msgpack"
)

// ContentType is the format's media type.
func (f Format) ContentType() string {
	if f == MsgPack {
		return ContentTypeMsgPack
	}
	return ContentTypeJSON
}

// String names the format.
func (f Format) String() string {
	if f == MsgPack {
		return "msgpack"
	}
	return "json"
}

// Negotiate finds the format of a request and of its reply from the headers
// Content-Type and Accept, either of which may be empty. The reply's format is good
// even where the error is not nil, so that the error can be answered.
func Negotiate(contentType, accept string) (in, out Format, err *schemas.Error) {
	in, ok := mediaType(contentType)
	if !ok {
		return JSON, JSON, schemas.Errorf(schemas.CodeUnsupportedMediaType,
			"content type %q is not supported: use %s or %s", contentType, ContentTypeJSON, ContentTypeMsgPack)
	}
	if accept == "" {
		return in, in, nil
	}
	for choice := range strings.SplitSeq(accept, ",") {
		name, _, _ := strings.Cut(choice, ";")
		name = strings.TrimSpace(name)
		if name == "*/*" || name == "application/*" {
			return in, in, nil
		}
		if out, ok = mediaType(name); ok && name != "" {
			return in, out, nil
		}
	}
	return in, in, schemas.Errorf(schemas.CodeUnsupportedMediaType,
		"no reply can be written as %q: accept %s or %s", accept, ContentTypeJSON, ContentTypeMsgPack)
}

// mediaType reads one media type; parameters are ignored, empty means JSON.
func mediaType(s string) (Format, bool) {
	switch s { // the spellings that nearly everybody uses
	case "", ContentTypeJSON:
		return JSON, true
	case ContentTypeMsgPack:
		return MsgPack, true
	}
	name, _, _ := strings.Cut(s, ";")
	switch name = strings.TrimSpace(name); {
	case name == "", strings.EqualFold(name, ContentTypeJSON):
		return JSON, true
	case strings.EqualFold(name, ContentTypeMsgPack), strings.EqualFold(name, "application/x-msgpack"):
		return MsgPack, true
	}
	return JSON, false
}
