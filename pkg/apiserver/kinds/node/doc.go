// Package node holds the rows of node.k8s.io: runtime classes; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package node
