package bootstrap

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		info := golden.Object[corev1.ConfigMap](t, files["info.yaml"])
		secrets := golden.Objects[corev1.Secret](t, files["tokens.yaml"])
		for _, s := range secrets {
			s.Data = map[string][]byte{}
			for k, v := range s.StringData {
				s.Data[k] = []byte(v)
			}
		}
		return decide(info, secrets, now).String()
	})
}

// TestSign compares with a signature that other implementations make.
func TestSign(t *testing.T) {
	const want = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
	if got := sign("Hello from the other side. I must have called a thousand times.", "joshua", "my voice is my passcode"); got != want {
		t.Error(got)
	}
}
