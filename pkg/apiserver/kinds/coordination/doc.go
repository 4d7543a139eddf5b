// Package coordination holds the rows of coordination.k8s.io: leases; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package coordination
