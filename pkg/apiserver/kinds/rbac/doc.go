// Package rbac holds the rows of rbac.authorization.k8s.io: roles and who has them; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package rbac
