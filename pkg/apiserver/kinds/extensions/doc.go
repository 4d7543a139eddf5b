// Package extensions holds the rows of the two groups that extend the API: custom resource definitions and aggregated services; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package extensions
