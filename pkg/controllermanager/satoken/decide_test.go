package satoken

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows what becomes of each secret, and which tokens are given up a year after.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		u := Usage{
			Secrets: golden.Objects[corev1.Secret](t, files["secrets.yaml"]), Accounts: golden.Objects[corev1.ServiceAccount](t, files["accounts.yaml"]),
			Pods: golden.Objects[corev1.Pod](t, files["pods.yaml"]), Period: 365 * 24 * time.Hour,
			Since: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), Now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		}
		var b strings.Builder
		for _, s := range u.Secrets {
			s.Namespace = "default"
			for k, v := range s.StringData {
				if s.Data == nil {
					s.Data = map[string][]byte{}
				}
				s.Data[k] = []byte(v)
			}
			var account *corev1.ServiceAccount
			for _, a := range u.Accounts {
				a.Namespace = "default"
				if a.Name == s.Annotations[corev1.ServiceAccountNameKey] {
					account = a
				}
			}
			fmt.Fprintf(&b, "%s %s\n", s.Name, decide(s, account, []byte("ca")))
		}
		b.WriteString(decideUnused(u).String())
		u.Since = u.Now
		if early := decideUnused(u).String(); early != "" {
			t.Errorf("nobody could have used them yet:\n%s", early)
		}
		return b.String()
	})
}
