package kind

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// object and list are what pointers to API types are.
type (
	object[T any] interface {
		*T
		Object
	}
	list[L any] interface {
		*L
		runtime.Object
	}
)

// In is a version of the Go types T and L: In[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, defaults.Pod).
// defaults may be nil.
func In[T, L any, PT object[T], PL list[L]](gv schema.GroupVersion, defaults func(PT)) Version {
	v := Version{
		GV:      gv,
		New:     func() Object { return PT(new(T)) },
		NewList: func() runtime.Object { return PL(new(L)) },
	}
	if defaults != nil {
		v.Default = func(obj runtime.Object) { defaults(obj.(PT)) }
	}
	return v
}

// Row completes a Def with its versions, best first; the first is the one stored.
func Row(d Def, versions ...Version) *Def {
	d.Versions, d.Storage = versions, versions[0]
	d.Group = d.Storage.GV.Group
	if d.Singular == "" {
		d.Singular = strings.ToLower(d.Kind)
	}
	return &d
}

// Status is the subresource that most kinds have.
var Status = Sub{Name: "status", Aspect: &Rules{}}
