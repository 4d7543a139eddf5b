// Package reviews holds the rows of the reviews: kinds that are asked and answered, never stored; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package reviews
