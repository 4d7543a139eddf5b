// Package endpoints holds the rows of discovery.k8s.io: endpoint slices; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package endpoints
