package resourceclaim

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows what becomes of every pod's claims, and then of every claim.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		pods, claims := golden.Objects[corev1.Pod](t, files["pods.yaml"]), golden.Objects[resourcev1.ResourceClaim](t, files["claims.yaml"])
		for _, p := range pods {
			s := PodSnapshot{Pod: p, Templates: map[string]*resourcev1.ResourceClaimTemplate{}, Claims: map[string]*resourcev1.ResourceClaim{}}
			for _, x := range golden.Objects[resourcev1.ResourceClaimTemplate](t, files["templates.yaml"]) {
				s.Templates[x.Name] = x
			}
			for _, c := range claims {
				if slices.Contains(named(p), c.Name) {
					s.Claims[c.Name] = c
				}
				if metav1.IsControlledBy(c, p) {
					s.Owned = append(s.Owned, c)
				}
			}
			b.WriteString("pod " + p.Name + "\n" + decidePod(s).String())
		}
		for _, c := range claims {
			left := func(uid string) bool {
				return !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return string(p.UID) == uid && !done(p) })
			}
			s := ClaimSnapshot{Claim: c, Left: func(r resourcev1.ResourceClaimConsumerReference) bool { return left(string(r.UID)) }}
			if ref := metav1.GetControllerOf(c); ref != nil {
				s.Orphan = left(string(ref.UID))
			}
			b.WriteString("claim " + c.Name + "\n" + decideClaim(s).String())
		}
		return b.String()
	})
}
