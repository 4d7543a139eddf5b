package namespace

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// left is how an archive writes what a turn could not remove.
type left struct {
	Resources  []string       `json:"resources"`
	Discovery  string         `json:"discovery"`
	Deletion   string         `json:"deletion"`
	Counts     map[string]int `json:"counts"`
	Finalizers map[string]int `json:"finalizers"`
}

// TestDecide takes the namespace through turns, each of which leaves something.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		ns := golden.Object[corev1.Namespace](t, files["namespace.yaml"])
		now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		var b strings.Builder
		for i, x := range golden.Objects[left](t, files["turns.yaml"]) {
			fmt.Fprintf(&b, "> turn %d\n", i+1)
			var all []schema.GroupVersionResource
			for _, name := range x.Resources {
				all = append(all, corev1.SchemeGroupVersion.WithResource(name))
			}
			for _, wave := range waves(all) {
				for _, gvr := range wave {
					fmt.Fprintf(&b, "%s ", gvr.Resource)
				}
				b.WriteString("\n")
			}
			r := remains{counts: x.Counts, finalizers: x.Finalizers}
			if x.Discovery != "" {
				r.discovery = errors.New(x.Discovery)
			}
			if x.Deletion != "" {
				r.deletion = errors.New(x.Deletion)
			}
			p := decide(Snapshot{Namespace: ns, remains: r, Now: metav1.NewTime(now.Add(time.Duration(i) * time.Second))})
			b.WriteString(p.String())
			if p.Conditions != nil {
				ns.Status.Conditions = p.Conditions
			}
		}
		for _, c := range ns.Status.Conditions {
			fmt.Fprintf(&b, "%s since %s\n", c.Type, c.LastTransitionTime.UTC().Format(time.TimeOnly))
		}
		return b.String()
	})
}
