// Package defaults fills in what an object leaves unsaid, one function per kind and version, one file per area.
//
// A function changes its argument and keeps no state, so any number may run at once; applying it twice is the same as
// once. The apiserver calls them on what clients send, the kubelet on static pods.
package defaults

func set[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func fill[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
