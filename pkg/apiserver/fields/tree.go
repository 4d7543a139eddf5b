package fields

import (
	"cmp"
	"strconv"
	"strings"
)

// What a node's own path is, apart from what lies below it.
const (
	changed = 1 << iota // added or modified; in a manager's entry: owned
	removed             // was there and is no more
	nobodys             // what no manager ever owns: names, uids, versions
)

// node is one element of paths. Its key is the element as it stands in FieldsV1 between the quotation marks.
type node struct {
	key  string
	size int32 // of the node with everything below it, in nodes
	is   uint8
}

// tree is a set of paths: nodes in the order in which one meets them going down, siblings in the order of keys.
type tree []node

// below answers what lies below the first node of t.
func (t tree) below() tree { return t[1:t[0].size] }

// after answers the siblings after the first node of t.
func (t tree) after() tree { return t[t[0].size:] }

// plain tells characters that stand for themselves wherever JSON writes them.
func plain(c byte) bool {
	return c >= ' ' && c < 0x7f && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

func plainText(s string) bool {
	for i := range len(s) {
		if !plain(s[i]) {
			return false
		}
	}
	return true
}

// read takes FieldsV1 apart; the nodes share its memory. It answers false for what the library would not have written, and
// for what needs to be unescaped.
func read(text string) (tree, bool) {
	if len(text) < 2 || text[0] != '{' {
		return nil, false
	}
	t := make(tree, 0, strings.Count(text, "{"))
	rest, _, ok := t.readBelow(text[1:])
	return t, ok && rest == ""
}

// readBelow reads the members of an object up to its end. own tells that the path itself is a member beside what is below it.
func (t *tree) readBelow(text string) (rest string, own, ok bool) {
	last := ""
	for first := true; ; first = false {
		switch {
		case text == "":
			return "", false, false
		case text[0] == '}':
			return text[1:], own, true
		case !first:
			if text[0] != ',' {
				return "", false, false
			}
			text = text[1:]
		}
		key, after, ok := cutKey(text)
		if !ok {
			return "", false, false
		}
		text = after
		if key == "." {
			if !first || !strings.HasPrefix(text, "{},") {
				return "", false, false
			}
			own, text = true, text[2:]
			continue
		}
		if o, ok := order(last, key); !ok || o >= 0 || !sound(key) {
			return "", false, false
		}
		last = key
		if text == "" || text[0] != '{' {
			return "", false, false
		}
		at := len(*t)
		*t = append(*t, node{key: key})
		var member bool
		if text, member, ok = t.readBelow(text[1:]); !ok {
			return "", false, false
		}
		n := &(*t)[at]
		n.size = int32(len(*t) - at)
		if member || n.size == 1 {
			n.is = changed
		}
	}
}

// cutKey reads a name of a JSON object and the colon after it.
func cutKey(text string) (key, rest string, ok bool) {
	if text == "" || text[0] != '"' {
		return "", "", false
	}
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case plain(c):
		case c == '\\' && i+1 < len(text) && text[i+1] == '"':
			i++
		case c == '"' && i+1 < len(text) && text[i+1] == ':':
			return text[1:i], text[i+2:], true
		default:
			return "", "", false
		}
	}
	return "", "", false
}

// kinds of keys in their order.
const kinds = "fkvi"

// order compares two keys as the library orders path elements; an empty a is before them all. It answers false for what is no key.
func order(a, b string) (int, bool) {
	if a == b {
		return 0, true
	}
	if len(b) < 2 || b[1] != ':' {
		return 0, false
	}
	if a == "" {
		return -1, true
	}
	if len(a) < 2 || a[1] != ':' {
		return 0, false
	}
	ka, kb := strings.IndexByte(kinds, a[0]), strings.IndexByte(kinds, b[0])
	if ka < 0 || kb < 0 {
		return 0, false
	}
	if ka != kb {
		return cmp.Compare(ka, kb), true
	}
	a, b = a[2:], b[2:]
	switch kinds[ka] {
	case 'f':
		return strings.Compare(a, b), true
	case 'v':
		va, ra, okA := cutScalar(a)
		vb, rb, okB := cutScalar(b)
		return va.compare(vb), okA && okB && ra == rb
	case 'k':
		return orderKeys(a, b)
	}
	ia, errA := strconv.Atoi(a)
	ib, errB := strconv.Atoi(b)
	return cmp.Compare(ia, ib), errA == nil && errB == nil
}

// sound tells that a key is one, and written as the library would.
func sound(key string) bool {
	if len(key) < 2 || key[1] != ':' {
		return false
	}
	rest := key[2:]
	switch key[0] {
	case 'f':
		return strings.IndexByte(rest, '\\') < 0
	case 'v':
		_, rest, ok := cutScalar(rest)
		return ok && rest == ""
	case 'i':
		i, err := strconv.Atoi(rest)
		return err == nil && strconv.Itoa(i) == rest
	case 'k':
		last := ""
		for first := true; rest != "" && (rest[0] == '{') == first && rest[0] != '}'; first = false {
			name, _, after, ok := cutPair(rest[1:])
			if !ok || !first && name <= last {
				return false
			}
			last, rest = name, after
		}
		return last != "" && rest == "}"
	}
	return false
}

// orderKeys compares {\"name\":value,...} by names and values in turn.
func orderKeys(a, b string) (int, bool) {
	if len(a) < 2 || len(b) < 2 || a[0] != '{' || b[0] != '{' {
		return 0, false
	}
	for {
		endA, endB := a[0] == '}', b[0] == '}'
		if endA || endB {
			ok := (!endA || len(a) == 1) && (!endB || len(b) == 1)
			switch {
			case endA && endB:
				return 0, ok
			case endA:
				return -1, ok
			}
			return 1, ok
		}
		na, va, ra, okA := cutPair(a[1:])
		nb, vb, rb, okB := cutPair(b[1:])
		if !okA || !okB {
			return 0, false
		}
		if c := strings.Compare(na, nb); c != 0 {
			return c, true
		}
		if c := va.compare(vb); c != 0 {
			return c, true
		}
		a, b = ra, rb
	}
}

// cutPair reads \"name\":value; the rest begins with a comma or the closing bracket.
func cutPair(text string) (name string, v scalar, rest string, ok bool) {
	n, rest, ok := cutScalar(text)
	if !ok || n.kind != isString || rest == "" || rest[0] != ':' {
		return "", v, "", false
	}
	v, rest, ok = cutScalar(rest[1:])
	return n.text, v, rest, ok && rest != "" && (rest[0] == ',' || rest[0] == '}')
}

// The kinds of scalars in their order.
const (
	isInt = iota
	isString
	isBool
)

// scalar is a value in a key.
type scalar struct {
	kind int
	text string
	num  int64 // of a bool: 1 is true
}

func (s scalar) compare(o scalar) int {
	return cmp.Or(cmp.Compare(s.kind, o.kind), cmp.Compare(s.num, o.num), strings.Compare(s.text, o.text))
}

// exact is the largest size of a number that the library, which reads them as floats, writes again as it was.
const exact = 1 << 50

// cutScalar reads a string in escaped quotation marks, a whole number or a truth value.
func cutScalar(text string) (v scalar, rest string, ok bool) {
	const mark = `\"`
	if after, ok := strings.CutPrefix(text, mark); ok {
		s, rest, ok := strings.Cut(after, mark)
		return scalar{kind: isString, text: s}, rest, ok
	}
	if rest, ok := strings.CutPrefix(text, "true"); ok {
		return scalar{kind: isBool, num: 1}, rest, true
	}
	if rest, ok := strings.CutPrefix(text, "false"); ok {
		return scalar{kind: isBool}, rest, true
	}
	end := 0
	for end < len(text) && (text[end] >= '0' && text[end] <= '9' || text[end] == '-') {
		end++
	}
	n, err := strconv.ParseInt(text[:end], 10, 64)
	return scalar{kind: isInt, num: n}, text[end:], err == nil && n < exact && n > -exact && strconv.FormatInt(n, 10) == text[:end]
}

// appendScalar writes a value as it stands in a key.
func appendScalar(b []byte, v scalar) []byte {
	switch v.kind {
	case isInt:
		return strconv.AppendInt(b, v.num, 10)
	case isBool:
		return strconv.AppendBool(b, v.num == 1)
	}
	b = append(b, '\\', '"')
	b = append(b, v.text...)
	return append(b, '\\', '"')
}

// appendJSON writes the tree as FieldsV1; own tells that the path above it is a member itself.
func (t tree) appendJSON(b []byte, own bool) []byte {
	b = append(b, '{')
	if own && len(t) > 0 {
		b = append(b, `".":{},`...)
	}
	for ; len(t) > 0; t = t.after() {
		b = append(b, '"')
		b = append(b, t[0].key...)
		b = append(b, '"', ':')
		b = t.below().appendJSON(b, t[0].is&changed != 0)
		if int(t[0].size) < len(t) {
			b = append(b, ',')
		}
	}
	return append(b, '}')
}
