// Package scheduling holds the rows of scheduling.k8s.io: priorities; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package scheduling
