package store

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Every object's field 1 is its ObjectMeta, and that one's field 6 its resourceVersion.
const (
	objectMeta          = 1
	metaResourceVersion = 6
)

// WithRevision returns a copy of an object's message with metadata.resourceVersion set to rev, or empty when rev is 0
// (as objects lie in etcd). Everything else stays byte for byte.
func WithRevision(raw []byte, rev int64) ([]byte, error) {
	r, err := Revise(raw, rev)
	if err != nil {
		return nil, err
	}
	return r.Append(make([]byte, 0, r.Size())), nil // it may be kept: not a byte more
}

// Revised is an object's message with another resourceVersion, not yet written.
type Revised struct {
	raw, meta         []byte
	at, end, from, to int
	text              string
}

// Revise is WithRevision for those who have a place for the copy.
func Revise(raw []byte, rev int64) (Revised, error) {
	at, meta, end, err := Metadata(raw)
	if err != nil {
		return Revised{}, err
	}
	from, to, err := find(meta, metaResourceVersion)
	if err != nil {
		return Revised{}, err
	}
	r := Revised{raw: raw, meta: meta, at: at, end: end, from: from, to: to}
	if rev > 0 {
		r.text = strconv.FormatInt(rev, 10)
	}
	return r, nil
}

// metaSize is the size of the new metadata, in bytes.
func (r Revised) metaSize() int {
	return len(r.meta) - (r.to - r.from) + 1 + protowire.SizeBytes(len(r.text))
}

// Size is the size of the new message, in bytes.
func (r Revised) Size() int { return r.at + 1 + protowire.SizeBytes(r.metaSize()) + len(r.raw) - r.end }

// Append appends the new message.
func (r Revised) Append(out []byte) []byte {
	out = append(out, r.raw[:r.at]...)
	out = protowire.AppendTag(out, objectMeta, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(r.metaSize()))
	out = append(out, r.meta[:r.from]...)
	out = protowire.AppendTag(out, metaResourceVersion, protowire.BytesType)
	out = protowire.AppendString(out, r.text)
	out = append(out, r.meta[r.to:]...)
	return append(out, r.raw[r.end:]...)
}

// Metadata finds the ObjectMeta in an object's message: it starts (with its tag) at at, ends at end, and is meta.
func Metadata(raw []byte) (at int, meta []byte, end int, err error) {
	for b, pos := raw, 0; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			break
		}
		if num == objectMeta && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b[n:])
			return pos, v, pos + n + m, nil
		}
		pos += n + m
		b = b[n+m:]
	}
	return 0, nil, 0, fmt.Errorf("the message has no metadata")
}

// find answers where field num lies in msg. An absent field is an empty range at the place it belongs: fields are in order.
func find(msg []byte, num protowire.Number) (from, to int, err error) {
	for pos := 0; pos < len(msg); {
		got, typ, n := protowire.ConsumeTag(msg[pos:])
		if n < 0 {
			return 0, 0, fmt.Errorf("the metadata is damaged")
		}
		m := protowire.ConsumeFieldValue(got, typ, msg[pos+n:])
		if m < 0 {
			return 0, 0, fmt.Errorf("the metadata is cut short")
		}
		if got == num {
			return pos, pos + n + m, nil
		}
		if got > num {
			return pos, pos, nil
		}
		pos += n + m
	}
	return len(msg), len(msg), nil
}
