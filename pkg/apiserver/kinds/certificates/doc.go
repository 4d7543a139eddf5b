// Package certificates holds the rows of certificates.k8s.io: signing requests; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package certificates
