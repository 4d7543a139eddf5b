// Package apps holds the rows of apps: workloads; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package apps
