// Package autoscaling holds the rows of autoscaling; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package autoscaling
