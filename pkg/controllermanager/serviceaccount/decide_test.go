package serviceaccount

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide asks for each namespace of an archive, whose accounts are what the cluster has.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		have := map[string]*corev1.ServiceAccount{}
		for _, a := range golden.Objects[corev1.ServiceAccount](t, files["accounts.yaml"]) {
			if a.Name == name {
				have[a.Namespace] = a
			}
		}
		var b strings.Builder
		for _, ns := range golden.Objects[corev1.Namespace](t, files["namespaces.yaml"]) {
			fmt.Fprintf(&b, "> %s\n%s", ns.Name, decide(Snapshot{Namespace: ns, Have: have[ns.Name]}))
		}
		return b.String()
	})
}
