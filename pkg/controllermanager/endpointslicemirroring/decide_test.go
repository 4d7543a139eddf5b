package endpointslicemirroring

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		s := Snapshot{
			Endpoints: golden.Object[corev1.Endpoints](t, files["endpoints.yaml"]), //nolint:staticcheck // it is what this is for
			Slices:    golden.Objects[discoveryv1.EndpointSlice](t, files["slices.yaml"]),
		}
		if text := files["service.yaml"]; text != "" {
			s.Service = golden.Object[corev1.Service](t, text)
		}
		p := decide(s)
		text := p.String()
		// Once is enough: what was planned is what is wanted.
		for i, x := range p.Create {
			x.Name = string(rune('a' + i))
		}
		s.Slices = append(p.Create, p.Update...)
		if again := decide(s); len(again.Create)+len(again.Delete)+len(again.Update) > 0 && len(p.Delete) == 0 && len(golden.Objects[discoveryv1.EndpointSlice](t, files["slices.yaml"])) == 0 {
			t.Errorf("once is not enough: %s", again)
		}
		return text
	})
}
