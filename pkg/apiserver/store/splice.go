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
	at, meta, end, err := Metadata(raw)
	if err != nil {
		return nil, err
	}
	from, to, err := find(meta, metaResourceVersion)
	if err != nil {
		return nil, err
	}
	text := ""
	if rev > 0 {
		text = strconv.FormatInt(rev, 10)
	}
	size := len(meta) - (to - from) + 1 + protowire.SizeBytes(len(text))
	out := make([]byte, 0, at+1+protowire.SizeVarint(uint64(size))+size+len(raw)-end) // it may be kept: not a byte more
	out = append(out, raw[:at]...)
	out = protowire.AppendTag(out, objectMeta, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(size))
	out = append(out, meta[:from]...)
	out = protowire.AppendTag(out, metaResourceVersion, protowire.BytesType)
	out = protowire.AppendString(out, text)
	out = append(out, meta[to:]...)
	return append(out, raw[end:]...), nil
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
