package expander

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		for _, c := range golden.Objects[corev1.PersistentVolumeClaim](t, files["claims.yaml"]) {
			fmt.Fprintf(&b, "%s waits: %v\n", c.Name, decide(c))
		}
		return b.String()
	})
}
