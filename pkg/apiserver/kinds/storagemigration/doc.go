// Package storagemigration holds the row of storagemigration.k8s.io: migrations of what is stored to another version.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package storagemigration
