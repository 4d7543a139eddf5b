// Package flowcontrol holds the rows of flowcontrol.apiserver.k8s.io: who may ask how much; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package flowcontrol
