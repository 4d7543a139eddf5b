package engine

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// optionsOf reads a stream's query as the options object that admission is shown; nil if the kind is unknown.
func optionsOf(gvk schema.GroupVersionKind, query url.Values) (runtime.Object, error) {
	if !scheme.Scheme.Recognizes(gvk) {
		return nil, nil
	}
	obj, err := scheme.Scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	v := reflect.ValueOf(obj).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		asked := query[name]
		if name == "" || len(asked) == 0 {
			continue
		}
		if err := setOption(v.Field(i), asked); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("%s: %v", name, err))
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// setOption sets a field to what the query says; fields of types that stand in no query stay as they are.
func setOption(f reflect.Value, asked []string) error {
	switch f.Kind() {
	case reflect.String:
		f.SetString(asked[0])
	case reflect.Bool:
		// As upstream reads it: whatever is not a no is a yes.
		f.SetBool(asked[0] != "false" && asked[0] != "0")
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(asked[0], 10, 64)
		if err != nil {
			return err
		}
		f.SetInt(n)
	case reflect.Slice:
		out := reflect.MakeSlice(f.Type(), len(asked), len(asked))
		for i, a := range asked {
			if err := setOption(out.Index(i), []string{a}); err != nil {
				return err
			}
		}
		f.Set(out)
	case reflect.Pointer:
		if k := f.Type().Elem().Kind(); k != reflect.String && k != reflect.Bool && k != reflect.Int64 {
			return nil
		}
		p := reflect.New(f.Type().Elem())
		if err := setOption(p.Elem(), asked); err != nil {
			return err
		}
		f.Set(p)
	default: // a time or the like
	}
	return nil
}
