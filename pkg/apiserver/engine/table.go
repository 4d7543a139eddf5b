package engine

import (
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// plainColumns are those of a kind whose row names none.
var plainColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
	{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
}

// table prints hub objects as the row says.
func (c *call) table(hubs []kind.Object, lm *metav1.ListMeta) (*metav1.Table, error) {
	include := metav1.IncludeObjectPolicy(c.values().Get("includeObject"))
	switch include {
	case "":
		include = metav1.IncludeMetadata
	case metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject:
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unrecognized includeObject value: %q", include))
	}
	t := &metav1.Table{ListMeta: *lm, ColumnDefinitions: c.def.Columns, Rows: make([]metav1.TableRow, 0, len(hubs))}
	if c.def.Row == nil {
		t.ColumnDefinitions = plainColumns
	}
	for _, h := range hubs {
		row := metav1.TableRow{}
		if c.def.Row != nil {
			row.Cells = c.def.Row(h)
		} else {
			row.Cells = []any{h.GetName(), h.GetCreationTimestamp().UTC().Format(time.RFC3339)}
		}
		switch include {
		case metav1.IncludeMetadata:
			row.Object.Object = withKind(partial(h), schema.GroupVersionKind{Group: metav1.GroupName, Version: "v1", Kind: "PartialObjectMetadata"})
		case metav1.IncludeObject:
			o, err := c.ver.Of(h)
			if err != nil {
				return nil, err
			}
			row.Object.Object = withKind(o, c.gvk())
		}
		t.Rows = append(t.Rows, row)
	}
	return t, nil
}

func withKind[T runtime.Object](obj T, gvk schema.GroupVersionKind) T {
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj
}

func setList(l runtime.Object, objs []runtime.Object) error { return meta.SetList(l, objs) }
