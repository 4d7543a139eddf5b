package store

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// magic starts every protobuf value, in etcd and on the wire.
var magic = []byte{'k', '8', 's', 0}

// The fields of runtime.Unknown, and of its TypeMeta.
const (
	unknownTypeMeta = 1
	unknownRaw      = 2
	typeAPIVersion  = 1
	typeKind        = 2
)

// Wrap puts a message into the envelope that says its type: the magic, then a runtime.Unknown.
func Wrap(apiVersion, kind string, raw []byte) []byte {
	return AppendWrap(make([]byte, 0, WrapSize(apiVersion, kind, len(raw))), apiVersion, kind, raw)
}

// AppendWrap is Wrap onto b.
func AppendWrap(b []byte, apiVersion, kind string, raw []byte) []byte {
	b = AppendWrapHead(b, apiVersion, kind, len(raw))
	b = append(b, raw...)
	return AppendWrapTail(b)
}

// AppendWrapHead appends the envelope up to the message, whose size is n.
func AppendWrapHead(b []byte, apiVersion, kind string, n int) []byte {
	b = append(b, magic...)
	b = protowire.AppendTag(b, unknownTypeMeta, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(typeSize(apiVersion, kind)))
	b = protowire.AppendTag(b, typeAPIVersion, protowire.BytesType)
	b = protowire.AppendString(b, apiVersion)
	b = protowire.AppendTag(b, typeKind, protowire.BytesType)
	b = protowire.AppendString(b, kind)
	b = protowire.AppendTag(b, unknownRaw, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(n))
}

// AppendWrapTail appends the empty content encoding and content type that upstream writes after the message.
func AppendWrapTail(b []byte) []byte { return append(b, 0x1a, 0, 0x22, 0) }

func typeSize(apiVersion, kind string) int {
	return 2 + protowire.SizeBytes(len(apiVersion)) + protowire.SizeBytes(len(kind))
}

// WrapSize is the size of the whole envelope around n bytes.
func WrapSize(apiVersion, kind string, n int) int {
	return len(magic) + 1 + protowire.SizeBytes(typeSize(apiVersion, kind)) + 1 + protowire.SizeBytes(n) + 4
}

// IsProto tells a protobuf value from a JSON one.
func IsProto(value []byte) bool { return bytes.HasPrefix(value, magic) }

// Unwrap opens an envelope. The message shares value's memory.
func Unwrap(value []byte) (apiVersion, kind string, raw []byte, err error) {
	if !IsProto(value) {
		return "", "", nil, fmt.Errorf("the value does not start with the protobuf magic")
	}
	for b := value[len(magic):]; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.BytesType {
			return "", "", nil, fmt.Errorf("the value's envelope is damaged")
		}
		v, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return "", "", nil, fmt.Errorf("the value's envelope is cut short")
		}
		b = b[n+m:]
		switch num {
		case unknownTypeMeta:
			if apiVersion, kind, err = typeMeta(v); err != nil {
				return "", "", nil, err
			}
		case unknownRaw:
			raw = v
		}
	}
	return apiVersion, kind, raw, nil
}

func typeMeta(b []byte) (apiVersion, kind string, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.BytesType {
			return "", "", fmt.Errorf("the value's type is damaged")
		}
		v, m := protowire.ConsumeString(b[n:])
		if m < 0 {
			return "", "", fmt.Errorf("the value's type is cut short")
		}
		b = b[n+m:]
		switch num {
		case typeAPIVersion:
			apiVersion = v
		case typeKind:
			kind = v
		}
	}
	return apiVersion, kind, nil
}
