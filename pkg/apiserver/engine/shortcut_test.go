package engine

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// filler makes values of API types up: sparse ones, of few words, so that two of them are alike in many ways.
type filler struct{ *rand.Rand }

var words = []string{"x", "y", "z", "ClusterIP", "a.b/c", "10.0.0.1", "TCP", "q&a"}

// word is seldom one that JSON escapes.
func (f filler) word() string {
	if f.IntN(200) == 0 {
		return words[len(words)-1]
	}
	return words[f.IntN(len(words)-1)]
}

// whole sets a value anew that has a life of its own in JSON; false for all others.
func (f filler) whole(v reflect.Value) bool {
	var of any
	switch v.Interface().(type) {
	case metav1.Time:
		of = metav1.Unix(int64(1e9+f.IntN(3)), int64(f.IntN(2)))
	case metav1.MicroTime:
		of = metav1.NewMicroTime(time.Unix(int64(f.IntN(3)), 5000))
	case resource.Quantity:
		of = resource.MustParse([]string{"1", "1000m", "2Gi"}[f.IntN(3)])
	case intstr.IntOrString:
		of = []intstr.IntOrString{intstr.FromInt32(1), intstr.FromString("1"), intstr.FromInt32(2)}[f.IntN(3)]
	case runtime.RawExtension:
		of = runtime.RawExtension{Raw: fmt.Appendf(nil, `{"a":%d}`, f.IntN(2))}
	case apiextensionsv1.JSON:
		of = apiextensionsv1.JSON{Raw: fmt.Appendf(nil, `{"a":%d}`, f.IntN(2))}
	case metav1.FieldsV1, []metav1.ManagedFieldsEntry, metav1.TypeMeta:
		return true
	default:
		return false
	}
	v.Set(reflect.ValueOf(of))
	return true
}

// fill sets a value anew, so many structs deep.
func (f filler) fill(v reflect.Value, depth int) {
	if f.whole(v) {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.word())
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.IntN(4)))
	case reflect.Uint32:
		v.SetUint(uint64(f.IntN(4)))
	case reflect.Float64:
		v.SetFloat(float64(f.IntN(4)) / 2)
	case reflect.Pointer:
		if v.SetZero(); depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), depth)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), f.IntN(3), 3))
		for i := range v.Len() {
			f.fill(v.Index(i), depth-1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range f.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key, 0)
			f.fill(value, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		if depth > 0 {
			f.change(v, depth-1, 3)
		}
	}
}

// change sets one in so many of a struct's fields anew, and goes into the others.
func (f filler) change(v reflect.Value, depth, oneIn int) {
	for i := range v.NumField() {
		field := v.Field(i)
		plain := field.Kind() != reflect.Struct
		switch {
		case !field.CanSet():
		case plain && f.IntN(oneIn) == 0 && f.IntN(4) == 0:
			field.SetZero()
		case plain && f.IntN(oneIn) == 0:
			f.fill(field, depth)
		case !plain && !(f.IntN(oneIn) == 0 && f.whole(field)) && depth > 0:
			f.inside(field, depth-1, oneIn)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct && depth > 0:
			for n := range field.Len() {
				f.inside(field.Index(n), depth-1, oneIn)
			}
		}
	}
}

func (f filler) inside(v reflect.Value, depth, oneIn int) {
	if was := reflect.New(v.Type()).Elem(); !f.whole(was) {
		f.change(v, depth, oneIn)
	}
}

// TestShortcut writes objects of every kind again and again, made up at random: who owns which of their fields is what the
// library of managed fields says.
func TestShortcut(t *testing.T) {
	taken, asked := 0, 0
	for _, def := range kinds.All(kinds.Deps{}) {
		if def.Virtual != nil || def.Loose != nil {
			continue
		}
		t.Run(def.Resource+"."+def.Group, func(t *testing.T) {
			own := newServed(def, &def.Storage, nil)
			rapid.Check(t, func(t *rapid.T) {
				f := filler{rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))}
				var now kind.Object
				for n := range 4 {
					c := &call{served: own, info: &request.Info{}, now: time.Now(), manager: []string{"ann", "bob", ""}[f.IntN(3)]}
					if f.IntN(3) == 0 && n > 0 && def.Sub("status") != nil {
						c.info.Sub = "status"
					}
					m, err := c.fieldManager()
					if err != nil {
						t.Fatal(err)
					}
					next, before := def.Storage.New(), def.Storage.New()
					if now != nil {
						next, before = now.DeepCopyObject().(kind.Object), now.DeepCopyObject().(kind.Object)
					}
					f.change(reflect.ValueOf(next).Elem(), 6, []int{2, 5, 20, 50}[f.IntN(4)])
					stamp(c, next)
					stamp(c, before)
					want, err := m.ask(c, next.DeepCopyObject().(kind.Object), before.DeepCopyObject().(kind.Object), true)
					if err != nil {
						t.Fatal(err)
					}
					wasBefore, wasNext := before.GetManagedFields(), next.GetManagedFields()
					var old kind.Object
					if now != nil {
						old = before
					}
					got, ok := c.shortcut(next, old)
					before.SetManagedFields(wasBefore)
					next.SetManagedFields(wasNext)
					if asked++; ok {
						taken++
						if !sameEntries(got, want) {
							t.Fatalf("write %d by %q through %q:\n%s\nshould be\n%s", n, c.manager, c.info.Sub, show(got), show(want))
						}
					}
					next.SetManagedFields(timed(want, time.Unix(int64(1e9+n), 0)))
					if len(want) > 0 && f.IntN(4) == 0 {
						want[0].Operation = metav1.ManagedFieldsOperationApply
					}
					next.SetUID(types.UID("u"))
					now = next
				}
			})
		})
	}
	t.Logf("of %d writes, %d were told without the library", asked, taken)
	if taken*2 < asked {
		t.Errorf("of %d writes, %d were told without the library", asked, taken)
	}
}

// timed gives entries times that follow each other as the writes do.
func timed(entries []metav1.ManagedFieldsEntry, now time.Time) []metav1.ManagedFieldsEntry {
	for i := range entries {
		if entries[i].Time != nil && time.Since(entries[i].Time.Time) < time.Hour {
			entries[i].Time = &metav1.Time{Time: now}
		}
	}
	return entries
}

func show(entries []metav1.ManagedFieldsEntry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %s %s %s\n", e.Manager, e.Operation, e.Subresource, e.FieldsV1.GetRawString())
	}
	return b.String()
}
