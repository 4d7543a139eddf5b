package fields

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// anySet is a set of few paths, of all kinds of elements.
func anySet(t *rapid.T) *fieldpath.Set {
	element := rapid.Custom(func(t *rapid.T) fieldpath.PathElement {
		word := rapid.SampledFrom([]string{"", "a", "b", "a.b", "10", "9"}).Draw(t, "word")
		num := rapid.SampledFrom([]int64{-1, 0, 9, 10}).Draw(t, "number")
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			return fieldpath.KeyElementByFields("name", word)
		case 1:
			return fieldpath.KeyElementByFields("port", num, "protocol", word)
		case 2:
			return fieldpath.KeyElementByFields("on", num > 0)
		case 3:
			return fieldpath.ValueElement(value.NewValueInterface(word))
		case 4:
			return fieldpath.IndexElement(max(int(num), 0))
		}
		return fieldpath.FieldNameElement(word)
	})
	s := fieldpath.NewSet()
	for _, p := range rapid.SliceOfN(rapid.SliceOfN(element, 1, 3), 0, 6).Draw(t, "paths") {
		s.Insert(p)
	}
	return s
}

func text(t interface{ Fatal(...any) }, s *fieldpath.Set) string {
	b, err := s.ToJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTrees holds reading, writing, subtracting and joining to the library's sets.
func TestTrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anySet(t), anySet(t)
		ta, okA := read(text(t, a))
		tb, okB := read(text(t, b))
		if !okA || !okB {
			t.Fatalf("%s or %s is not read", text(t, a), text(t, b))
		}
		var minus, plus tree
		minus.subtract(ta, tb)
		plus.join(ta, tb)
		for what, got := range map[string]struct {
			got  tree
			want *fieldpath.Set
		}{"itself": {ta, a}, "difference": {minus, a.Difference(b)}, "union": {plus, a.Union(b)}} {
			if g, w := got.got.appendJSON(nil, false), text(t, got.want); string(g) != w {
				t.Fatalf("%s of %s and %s is %s, should be %s", what, text(t, a), text(t, b), g, w)
			}
		}
		if got, want := meets(ta, tb), !a.Intersection(b).Empty(); got != want {
			t.Fatalf("%s meets %s: %v", text(t, a), text(t, b), got)
		}
	})
}

// TestReadOnlyWhatIsWritten refuses what the library would write in another way, so that it is asked.
func TestReadOnlyWhatIsWritten(t *testing.T) {
	for _, s := range []string{
		``, `{`, `[]`, `{}x`, `{ }`, `{"f:a":{}, "f:b":{}}`, `{"f:b":{},"f:a":{}}`, `{"f:a":{},"f:a":{}}`, `{"f:a":{".":{}}}`, `{"f:a":1}`, `{"g:a":{}}`,
		`{"a":{}}`, `{"f:\u003c":{}}`, `{"f:ä":{}}`, `{"f:\"":{}}`, `{"k:{\"a\":1.5}":{}}`, `{"k:{}":{}}`, `{"k:}":{}}`, `{"k:{\"b\":1,\"a\":1}":{}}`, `{"k:{\"a\":01}":{},"k:{\"a\":2}":{}}`, `{"f:a":{"f:b":{},".":{}}}`, `{"v:[1]":{},"v:1":{}}`,
	} {
		if _, ok := read(s); ok {
			t.Errorf("%s is read", s)
		}
	}
}

// FuzzRead reads anything; what is read is written as it was.
func FuzzRead(f *testing.F) {
	f.Add(`{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}},"v:\"x\"":{}}}}`)
	f.Fuzz(func(t *testing.T, s string) {
		tree, ok := read(s)
		if !ok {
			return
		}
		if b := tree.appendJSON(nil, false); string(b) != s {
			t.Fatalf("%q is written as %q", s, b)
		}
		var set fieldpath.Set
		if err := set.FromJSON(bytes.NewReader([]byte(s))); err != nil {
			t.Fatalf("%q is not read by the library: %v", s, err)
		}
		if got := text(t, &set); got != s {
			t.Fatalf("the library writes %q as %q", s, got)
		}
	})
}
