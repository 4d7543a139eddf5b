// Package admissionregistration holds the rows of admissionregistration.k8s.io: webhooks and policies; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package admissionregistration
