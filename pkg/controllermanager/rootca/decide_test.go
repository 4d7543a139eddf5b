package rootca

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide asks for each namespace of an archive, whose maps are what the cluster has.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		have := map[string]*corev1.ConfigMap{}
		for _, m := range golden.Objects[corev1.ConfigMap](t, files["configmaps.yaml"]) {
			have[m.Namespace] = m
		}
		var b strings.Builder
		for _, ns := range golden.Objects[corev1.Namespace](t, files["namespaces.yaml"]) {
			p := decide(Snapshot{Namespace: ns, Have: have[ns.Name], CA: "CA"})
			fmt.Fprintf(&b, "> %s\n%s", ns.Name, p)
			for _, next := range []*corev1.ConfigMap{p.Create, p.Update} {
				if next == nil {
					continue
				}
				if again := decide(Snapshot{Namespace: ns, Have: next, CA: "CA"}).String(); again != "" {
					t.Errorf("it wants to write again: %s", again)
				}
			}
		}
		return b.String()
	})
}
