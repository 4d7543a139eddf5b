// Package resource holds the rows of resource.k8s.io: devices and claims on them; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package resource
