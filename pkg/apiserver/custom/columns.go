package custom

import (
	"bytes"
	"fmt"
	"reflect"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/jsonpath"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// age is the column of a version that names none.
var age = apiextensionsv1.CustomResourceColumnDefinition{
	Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
}

// column is one printed column: where its value stands.
type column struct {
	typ  string
	path *jsonpath.JSONPath
}

// columns answers a version's columns and how a row of them is made.
func (v *version) columns() ([]metav1.TableColumnDefinition, func(kind.Object) []any) {
	want := v.AdditionalPrinterColumns
	if len(want) == 0 {
		want = []apiextensionsv1.CustomResourceColumnDefinition{age}
	}
	heads := []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}}
	var cols []column
	for _, c := range want {
		path := jsonpath.New(c.Name).AllowMissingKeys(true)
		if path.Parse("{"+c.JSONPath+"}") != nil {
			break // as far as they can be read
		}
		doc := c.Description
		if doc == "" {
			doc = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		heads = append(heads, metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: doc, Priority: c.Priority})
		cols = append(cols, column{c.Type, path})
	}
	return heads, func(obj kind.Object) []any {
		cells := []any{obj.GetName()}
		m, err := obj.(*Object).Map()
		for _, c := range cols {
			if err != nil {
				cells = append(cells, nil)
				continue
			}
			cells = append(cells, c.cell(m))
		}
		return cells
	}
}

func (c column) cell(m map[string]any) any {
	found, err := c.path.FindResults(m)
	if err != nil || len(found) == 0 || len(found[0]) == 0 || !found[0][0].IsValid() {
		return nil
	}
	v := found[0][0].Interface()
	switch x := v.(type) {
	case nil:
		return nil
	case int64:
		switch c.typ {
		case "integer":
			return x
		case "number":
			return float64(x)
		}
	case float64:
		switch c.typ {
		case "integer":
			return int64(x)
		case "number":
			return x
		}
	case bool:
		if c.typ == "boolean" {
			return x
		}
	case string:
		if c.typ == "date" {
			var t metav1.Time
			if err := t.UnmarshalQueryParameter(x); err != nil {
				return "<invalid>"
			}
			return kind.Age(t)
		}
	}
	if c.typ != "string" {
		return nil
	}
	var text bytes.Buffer
	if err := c.path.PrintResults(&text, []reflect.Value{reflect.ValueOf(v)}); err != nil {
		return nil
	}
	return text.String()
}

// selected answers the values of selectable fields in an object's map.
func selected(m map[string]any, fields []string) map[string]string {
	out := make(map[string]string, len(fields))
	for _, f := range fields {
		var v any = m
		for _, p := range parts(f) {
			next, _ := v.(map[string]any)
			v = next[p]
		}
		if v != nil {
			out[f] = fmt.Sprint(v)
		}
	}
	return out
}
