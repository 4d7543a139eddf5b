// Package core holds the rows of the core group; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package core
