// Package batch holds the rows of batch: jobs and their schedules; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package batch
