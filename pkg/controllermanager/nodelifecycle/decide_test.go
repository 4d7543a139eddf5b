package nodelifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows what becomes of a node that was silent for some time, and when the pods leave it.
func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		if script := files["zones"]; script != "" {
			return showZones(t, script)
		}
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

// showZones shows how fast nodes are given up after each line "zone ready silent", which says how many nodes of a zone are so.
func showZones(t *testing.T, script string) string {
	var b strings.Builder
	nodes := map[string][]*corev1.Node{}
	for line := range strings.Lines(script) {
		name, ready, silent := "", 0, 0
		if _, err := fmt.Sscan(line, &name, &ready, &silent); err != nil {
			t.Fatal(err)
		}
		nodes[name] = nil
		for i := range ready + silent {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(name, "-", i), Labels: map[string]string{corev1.LabelTopologyRegion: "r", corev1.LabelTopologyZone: name}}}
			if i < ready {
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
			}
			nodes[name] = append(nodes[name], n)
		}
		var all []*corev1.Node
		for _, list := range nodes {
			all = append(all, list...)
		}
		fmt.Fprintf(&b, "of %s %d are ready, %d silent\n", name, ready, silent)
		for line := range strings.Lines(assess(all, Config{Rate: 0.1, SecondaryRate: 0.01, Unhealthy: 0.55, Large: 50}).String()) {
			b.WriteString("  " + line)
		}
	}
	return b.String()
}
