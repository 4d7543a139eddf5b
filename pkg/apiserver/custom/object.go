package custom

import (
	"encoding/json"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Object is a custom object: typed metadata, and all else as it came.
type Object struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	// Rest are the top fields besides apiVersion, kind and metadata; whole numbers are int64, others float64.
	Rest map[string]any
}

var (
	_ kind.Object = (*Object)(nil)
	_ kind.Mapped = (*Object)(nil)
)

// MarshalJSON writes the object with its fields in order of their names.
func (o *Object) MarshalJSON() ([]byte, error) {
	all := make(map[string]any, len(o.Rest)+3)
	maps.Copy(all, o.Rest)
	if o.APIVersion != "" {
		all["apiVersion"] = o.APIVersion
	}
	if o.Kind != "" {
		all["kind"] = o.Kind
	}
	all["metadata"] = &o.ObjectMeta
	return json.Marshal(all)
}

// UnmarshalJSON reads what MarshalJSON wrote; fields of the metadata that there are none of are dropped.
func (o *Object) UnmarshalJSON(b []byte) error {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	*o = Object{Rest: make(map[string]any, len(parts))}
	for name, raw := range parts {
		var err error
		switch name {
		case "apiVersion":
			err = json.Unmarshal(raw, &o.APIVersion)
		case "kind":
			err = json.Unmarshal(raw, &o.Kind)
		case "metadata":
			err = json.Unmarshal(raw, &o.ObjectMeta)
		default:
			var v any
			err = utiljson.Unmarshal(raw, &v)
			o.Rest[name] = v
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// DeepCopyObject copies everything.
func (o *Object) DeepCopyObject() runtime.Object {
	c := &Object{TypeMeta: o.TypeMeta, Rest: runtime.DeepCopyJSON(o.Rest)}
	o.DeepCopyInto(&c.ObjectMeta)
	return c
}

// Map answers the whole object as one map, which shares Rest's values.
func (o *Object) Map() (map[string]any, error) {
	meta, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&o.ObjectMeta)
	if err != nil {
		return nil, err
	}
	if meta["creationTimestamp"] == nil {
		delete(meta, "creationTimestamp")
	}
	all := maps.Clone(o.Rest)
	if all == nil {
		all = map[string]any{}
	}
	all["apiVersion"], all["kind"], all["metadata"] = o.APIVersion, o.Kind, meta
	return all, nil
}

// SetMap makes the object what m says; it shares m's values.
func (o *Object) SetMap(m map[string]any) error {
	n, err := fromMap(m)
	if err == nil {
		*o = *n
	}
	return err
}

// fromMap is Map's reverse.
func fromMap(m map[string]any) (*Object, error) {
	o := &Object{Rest: maps.Clone(m)}
	o.APIVersion, _ = m["apiVersion"].(string)
	o.Kind, _ = m["kind"].(string)
	for _, k := range []string{"apiVersion", "kind", "metadata"} {
		delete(o.Rest, k)
	}
	meta, ok := m["metadata"].(map[string]any)
	if !ok {
		return o, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(meta, &o.ObjectMeta); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return o, nil
}

// List is a list of custom objects of one kind.
type List struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []Object

	of schema.GroupVersionKind
}

// GetListMeta answers the list's metadata.
func (l *List) GetListMeta() metav1.ListInterface { return &l.ListMeta }

// MarshalJSON writes the list; every item says what it is.
func (l *List) MarshalJSON() ([]byte, error) {
	items := make([]*Object, len(l.Items))
	for i := range l.Items {
		o := l.Items[i]
		o.SetGroupVersionKind(l.of)
		items[i] = &o
	}
	return json.Marshal(map[string]any{"apiVersion": l.APIVersion, "kind": l.Kind, "metadata": &l.ListMeta, "items": items})
}

// DeepCopyObject copies everything.
func (l *List) DeepCopyObject() runtime.Object {
	c := &List{TypeMeta: l.TypeMeta, of: l.of, Items: make([]Object, len(l.Items))}
	l.DeepCopyInto(&c.ListMeta)
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopyObject().(*Object)
	}
	return c
}
