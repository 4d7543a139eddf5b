// Package networking holds the rows of networking.k8s.io; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package networking
