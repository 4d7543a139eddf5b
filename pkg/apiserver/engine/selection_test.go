package engine

import (
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// callOn is a call in namespace n on config maps, which have a field to select by.
func callOn(name string) *call {
	v := kind.In[corev1.ConfigMap, corev1.ConfigMapList](corev1.SchemeGroupVersion, nil)
	def := kind.Row(kind.Def{Kind: "ConfigMap", Resource: "configmaps", Namespaced: true, FieldNames: []string{"spec.x"}}, v)
	return &call{served: &served{def: def, ver: &def.Versions[0]}, info: &request.Info{Namespace: "n", Name: name}}
}

// askedFor fails unless an error is a Status that says it is the client's.
func askedFor(t *testing.T, what string, err error) {
	t.Helper()
	if s := StatusOf(err); s.Code < 400 || s.Code > 499 || s.Message == "" || s.Status != "Failure" {
		t.Errorf("%q is answered with %+v", what, s)
	}
}

// FuzzSelector reads anything as selectors of labels and fields: it is refused as the client's fault, or becomes selectors
// that read the same when they are written and read again, select the same then, and never leave the namespace. Reading takes
// no longer and no more memory than the text is long.
func FuzzSelector(f *testing.F) {
	for _, s := range [][2]string{
		{"", ""}, {"a", "metadata.name=a"}, {"!a", "metadata.name!=a"}, {"a=b,c!=d", "metadata.name=a,metadata.namespace=n"}, {"a in (b, c),d notin ()", `spec.x=a\,b\=c\\`}, {"a>1,b<2", "spec.x==1"}, {"x.io/a==b", "spec.y=1"},
		{"a in (b", "="}, {"a=b,,", ",,"}, {"in in (in),notin notin (notin)", "metadata.name"}, {"a=-", `spec.x=\`}, {"a>1e3", "spec.x=a\x00b"}, {" a , b ", " spec.x = a "}, {"a\u00a0=b", "spec.x!="},
	} {
		f.Add(s[0], s[1])
	}
	things := []labels.Set{nil, {"a": ""}, {"a": "b"}, {"a": "2", "c": "d"}, {"in": "in", "x.io/a": "b"}}
	places := []fields.Set{{}, {"metadata.name": "a", "metadata.namespace": "n", "spec.x": "1"}, {"metadata.name": "one", "spec.x": "a,b=c\\"}}
	f.Fuzz(func(t *testing.T, byLabels, byFields string) {
		for _, name := range []string{"", "one"} {
			c, begun := callOn(name), time.Now()
			s, err := c.selector(byLabels, byFields)
			if took := time.Since(begun); took > time.Second+time.Duration(len(byLabels)+len(byFields))*time.Microsecond {
				t.Errorf("it took %v", took)
			}
			if err != nil {
				askedFor(t, byLabels+" "+byFields, err)
				continue
			}
			if s.Namespace != "n" {
				t.Errorf("%q selects in %q", byFields, s.Namespace)
			}
			var text [2]string
			if s.Labels != nil {
				text[0] = s.Labels.String()
			}
			if s.Fields != nil {
				text[1] = s.Fields.String()
			}
			if len(text[0]) > 2*len(byLabels)+8 || len(text[1]) > 2*len(byFields)+32 {
				t.Errorf("%q, %q became %q", byLabels, byFields, text)
			}
			again, err := callOn("").selector(text[0], text[1])
			if err != nil {
				t.Fatalf("%q, %q became %q, which is refused: %v", byLabels, byFields, text, err)
			}
			if l := again.Labels; l != nil && l.String() != text[0] {
				t.Errorf("%q became %q and then %q", byLabels, text[0], l)
			}
			if l := again.Fields; name == "" && l != nil && l.String() != text[1] { // the name comes last, and is put in order later
				t.Errorf("%q became %q and then %q", byFields, text[1], l)
			}
			for _, set := range things {
				if s.Labels != nil && matchesLabels(again.Labels, set) != s.Labels.Matches(set) {
					t.Errorf("%q selects %v, %q does not, or the other way", byLabels, set, text[0])
				}
			}
			for _, set := range places {
				if s.Fields != nil && matchesFields(again.Fields, set) != s.Fields.Matches(set) {
					t.Errorf("%q selects %v, %q does not, or the other way", byFields, set, text[1])
				}
				if name != "" && set["metadata.name"] != name && s.Fields.Matches(set) {
					t.Errorf("%q selects %v, which is not %q", byFields, set, name)
				}
			}
		}
	})
}

// matchesLabels is Matches of a selector that may be none.
func matchesLabels(s labels.Selector, of labels.Set) bool { return s == nil || s.Matches(of) }

func matchesFields(s fields.Selector, of fields.Set) bool { return s == nil || s.Matches(of) }

// FuzzContinue reads anything as a continue token: it is refused as the client's fault, or names a place in the namespace
// that was asked for; the token that is written for that place, also when its state is gone, is read as the same.
func FuzzContinue(f *testing.F) {
	c := callOn("")
	for _, s := range []string{
		"", "!", "e30", "bnVsbA", "W10", c.token(7, "n/a"), c.token(-1, "n/b"), c.token(1<<62, "n/"), c.token(5, "m/../n/a"),
		"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi9rdWJlLXN5c3RlbS8ifQ",                                      // ../kube-system/
		"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0",                                                         // a, without the end that ours have
		"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MWU0MDAsInN0YXJ0IjoiYSJ9", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0", "e30=", // 1e400; no start
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		rev, from, err := c.parseToken(token)
		if err != nil {
			askedFor(t, token, err)
			return
		}
		if rev == 0 || len(from) <= len("n/") || from[:2] != "n/" {
			t.Fatalf("%q is %q at %d", token, from, rev)
		}
		err = c.expiredToken(from)
		askedFor(t, token, err)
		s := StatusOf(err)
		if s.Code != http.StatusGone || s.ListMeta.Continue == "" {
			t.Errorf("%q expires with %+v", token, s)
		}
		if at, again, err := c.parseToken(s.ListMeta.Continue); err != nil || at != -1 || again != from {
			t.Errorf("%q, which goes on at %q, goes on at %q when it has expired, %v", token, from, again, err)
		}
	})
}
