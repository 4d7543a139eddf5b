//go:build e2e

package e2e

import "testing"

// TestScheduling runs every script about where pods go, and why they wait, all at once. Each has a resource, priority classes and volumes
// of its own, so that they do not compete.
func TestScheduling(t *testing.T) {
	scripts(t, kubectl, found(t, "testdata/scheduling/*.txtar")...)
}
