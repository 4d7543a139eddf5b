// Package policy holds the rows of policy: disruption budgets; one file per kind.
//
// Rows are data: see package kind. They are built once and shared by all goroutines.
package policy
