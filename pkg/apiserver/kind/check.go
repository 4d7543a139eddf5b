package kind

import "k8s.io/apimachinery/pkg/util/validation/field"

// Valid is a Check made of what is asked of a new object and of one in the place of old.
func Valid[T interface {
	Object
	comparable
}](create func(obj T) field.ErrorList, update func(obj, old T) field.ErrorList) func(*Op, Object, Object) field.ErrorList {
	return Ask(func(_ *Op, obj, old T) field.ErrorList {
		var none T
		if old == none {
			return create(obj)
		}
		return update(obj, old)
	})
}
