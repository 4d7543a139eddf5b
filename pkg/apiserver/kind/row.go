package kind

import (
	"fmt"
	"reflect"
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
	v.Deprecated, v.Removed = deprecation(gv, PT(new(T)))
	if defaults != nil {
		v.Default = func(obj runtime.Object) { defaults(obj.(PT)) }
	}
	return v
}

// release is the minor version of Kubernetes whose API is served.
const release = 37

// deprecation answers the warning that a type deserves, and the release that takes it away, as its methods tell: both "" for
// most.
func deprecation(gv schema.GroupVersion, obj Object) (warning, removed string) {
	d, ok := obj.(interface {
		APILifecycleDeprecated() (major, minor int)
	})
	if !ok {
		return "", ""
	}
	major, minor := d.APILifecycleDeprecated()
	if major == 0 || major == 1 && minor > release {
		return "", ""
	}
	name := reflect.TypeOf(obj).Elem().Name()
	warning = fmt.Sprintf("%s %s is deprecated in v%d.%d+", gv, name, major, minor)
	if r, ok := obj.(interface {
		APILifecycleRemoved() (major, minor int)
	}); ok {
		if major, minor := r.APILifecycleRemoved(); major != 0 {
			removed = fmt.Sprintf("%d.%d", major, minor)
			warning += fmt.Sprintf(", unavailable in v%s+", removed)
		}
	}
	if r, ok := obj.(interface {
		APILifecycleReplacement() schema.GroupVersionKind
	}); ok {
		if to := r.APILifecycleReplacement(); !to.Empty() {
			warning += fmt.Sprintf("; use %s %s", to.GroupVersion(), to.Kind)
		}
	}
	return warning, removed
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
