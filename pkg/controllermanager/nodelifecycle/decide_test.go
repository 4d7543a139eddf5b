package nodelifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows what becomes of a node that was silent for some time, and when the pods leave it.
func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		n := golden.Object[corev1.Node](t, files["node.yaml"])
		silent, err := time.ParseDuration(strings.TrimSpace(files["silent"]))
		if err != nil {
			t.Fatal(err)
		}
		p := decide(Sight{
			Node: n, Renewed: now.Add(-silent), Now: now, Grace: 50 * time.Second, Turn: files["held"] == "", Dark: files["dark"] != "",
		})
		var b strings.Builder
		b.WriteString(p.String())
		taints := n.Spec.Taints
		if p.Taints != nil {
			taints = p.Taints
		}
		for _, pod := range golden.Objects[corev1.Pod](t, files["pods.yaml"]) {
			at, leaves := evictAt(pod, taints, now)
			if leaves {
				fmt.Fprintf(&b, "%s leaves at %s\n", pod.Name, at.UTC().Format(time.TimeOnly))
			} else {
				fmt.Fprintf(&b, "%s stays\n", pod.Name)
			}
		}
		return b.String()
	})
}
