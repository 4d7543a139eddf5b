package engine

import (
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// unlike answers copies of two objects of one type from which the fields are left out in which they do not differ, down to
// the fields of spec, status and metadata. What names an object stays. Comparing the copies finds what comparing the
// objects would: most writes change little, and the library that records who wrote what walks all it is given. The copies
// share what they keep with the objects; neither is changed.
func unlike(a, b kind.Object) (kind.Object, kind.Object) {
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	if va.Type() != vb.Type() || va.Kind() != reflect.Pointer || va.Elem().Kind() != reflect.Struct {
		return a, b
	}
	ca, cb := reflect.New(va.Type().Elem()), reflect.New(vb.Type().Elem())
	ca.Elem().Set(va.Elem())
	cb.Elem().Set(vb.Elem())
	for i := range ca.Elem().NumField() {
		fa, fb := ca.Elem().Field(i), cb.Elem().Field(i)
		switch {
		case !fa.CanSet():
			return a, b // a type that keeps something to itself is taken as it is
		case fa.Type() == reflect.TypeFor[metav1.TypeMeta]():
		case fa.Type() == reflect.TypeFor[metav1.ObjectMeta]():
			ma, mb := fa.Addr().Interface().(*metav1.ObjectMeta), fb.Addr().Interface().(*metav1.ObjectMeta)
			leave(reflect.ValueOf(&ma.Labels).Elem(), reflect.ValueOf(&mb.Labels).Elem())
			leave(reflect.ValueOf(&ma.OwnerReferences).Elem(), reflect.ValueOf(&mb.OwnerReferences).Elem())
			leave(reflect.ValueOf(&ma.Finalizers).Elem(), reflect.ValueOf(&mb.Finalizers).Elem())
		case fa.Kind() == reflect.Struct:
			for n := range fa.NumField() {
				if !fa.Field(n).CanSet() {
					return a, b
				}
				leave(fa.Field(n), fb.Field(n))
			}
		default:
			leave(fa, fb)
		}
	}
	return ca.Interface().(kind.Object), cb.Interface().(kind.Object)
}

// leave empties two fields that are alike.
func leave(a, b reflect.Value) {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		a.SetZero()
		b.SetZero()
	}
}
