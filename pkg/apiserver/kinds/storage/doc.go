// Package storage holds the rows of storage.k8s.io: classes, drivers and attachments; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package storage
