package validate_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/staging/api/validate"
)

type record struct {
	Path, Verb      string
	Code            int
	Body            map[string]any
	Remove, Replace *string
	With            any
	Answer          struct{ Causes [][3]string }
}

// TestRecorded holds our errors equal, to the letter, to those upstream answered to objects with one field gone or changed.
func TestRecorded(t *testing.T) {
	f, err := os.Open("testdata/answers-1.36.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	accepted, refused := 0, 0
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Body != nil {
			body, _ = json.Marshal(r.Body)
		}
		var sent map[string]any
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatal(err)
		}
		base, what := sent["kind"].(string), r.Verb
		switch {
		case r.Remove != nil:
			what += " without " + *r.Remove
			change(sent, *r.Remove, nil, true)
		case r.Replace != nil:
			what += " with another " + *r.Replace
			change(sent, *r.Replace, r.With, false)
		}
		now, _ := json.Marshal(sent)
		var errs field.ErrorList
		if base == "ConfigMap" {
			errs = ask(t, r.Verb, now, body, func(*corev1.ConfigMap) {}, validate.ConfigMap, validate.ConfigMapUpdate)
		} else {
			errs = ask(t, r.Verb, now, body, prepare, validate.Secret, validate.SecretUpdate)
		}
		var got [][3]string
		for _, e := range errs {
			got = append(got, [3]string{e.Field, string(e.Type), e.ErrorBody()})
		}
		if !reflect.DeepEqual(got, r.Answer.Causes) {
			t.Errorf("%s %s:\n got %q\nwant %q", base, what, got, r.Answer.Causes)
		}
		if r.Code == 422 {
			refused++
		} else {
			accepted++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if accepted == 0 || refused == 0 {
		t.Errorf("%d accepted, %d refused: nothing was held", accepted, refused)
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
}

// prepare does what the apiserver's row has done to a secret before it is checked.
func prepare(s *corev1.Secret) {
	for k, v := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
}

func ask[T any, P interface {
	*T
	metav1.Object
}](t *testing.T, verb string, now, was []byte, prepare func(P), create func(P) field.ErrorList, update func(P, P) field.ErrorList) field.ErrorList {
	t.Helper()
	read := func(raw []byte) P {
		o := P(new(T))
		if err := json.Unmarshal(raw, o); err != nil {
			t.Fatal(err)
		}
		o.SetNamespace("corpus")
		prepare(o)
		return o
	}
	obj, old := read(now), read(was)
	if verb == "POST" {
		return create(obj)
	}
	// The engine has taken over the identity and, as the write names no version, the version.
	obj.SetName(old.GetName())
	old.SetResourceVersion("1")
	obj.SetResourceVersion("1")
	return update(obj, old)
}

// change takes out or replaces what stands at a JSON pointer.
func change(o map[string]any, pointer string, with any, remove bool) {
	changed(o, strings.Split(pointer, "/")[1:], with, remove)
}

func changed(v any, path []string, with any, remove bool) any {
	switch v := v.(type) {
	case map[string]any:
		k := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
		switch {
		case len(path) > 1:
			v[k] = changed(v[k], path[1:], with, remove)
		case remove:
			delete(v, k)
		default:
			v[k] = with
		}
		return v
	case []any:
		i, _ := strconv.Atoi(path[0])
		switch {
		case len(path) > 1:
			v[i] = changed(v[i], path[1:], with, remove)
		case remove:
			return slices.Delete(v, i, i+1)
		default:
			v[i] = with
		}
		return v
	}
	return v
}
