package endpoints

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		s := Snapshot{
			Service: golden.Object[corev1.Service](t, files["service.yaml"]), Pods: golden.Objects[corev1.Pod](t, files["pods.yaml"]),
			Trigger: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		}
		if many := 0; files["copies"] != "" {
			if _, err := fmt.Sscan(files["copies"], &many); err != nil {
				t.Fatal(err)
			}
			s.Pods = copies(s.Pods, many)
		}
		if have := golden.Objects[corev1.Endpoints](t, files["endpoints.yaml"]); len(have) > 0 {
			s.Have = have[0]
		}
		p := decide(s)
		next := p.Create
		if next == nil {
			next = p.Update
		}
		if next != nil {
			s.Have = next
			if again := decide(s).String(); again != "" {
				t.Errorf("once is not enough: %s", again)
			}
		}
		return p.String()
	})
}

// copies multiplies pods, each with its own name and address.
func copies(pods []*corev1.Pod, n int) []*corev1.Pod {
	var out []*corev1.Pod
	for i, p := range pods {
		for j := range n {
			c := p.DeepCopy()
			c.Name = fmt.Sprint(p.Name, j)
			c.UID = types.UID(c.Name)
			c.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.%d.%d.%d", i, j/250, j%250)}}
			out = append(out, c)
		}
	}
	return out
}
