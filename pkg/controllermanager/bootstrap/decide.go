package bootstrap

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What bootstrap tokens are made of, as every client knows it.
const (
	secretType   = corev1.SecretType("bootstrap.kubernetes.io/token")
	namePrefix   = "bootstrap-token-"
	keyID        = "token-id"
	keySecret    = "token-secret"
	keyEnd       = "expiration"
	keySigning   = "usage-bootstrap-signing"
	configName   = "cluster-info"
	configFile   = "kubeconfig"
	signaturePre = "jws-kubeconfig-"
)

var (
	idForm     = regexp.MustCompile(`^[a-z0-9]{6}$`)
	secretForm = regexp.MustCompile(`^[a-z0-9]{16}$`)
)

// Plan is the data of cluster-info as it is to be.
type Plan struct {
	Data    map[string]string
	Changed bool
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	if !p.Changed {
		return ""
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p.Data)) {
		fmt.Fprintf(&b, "%s: %s\n", k, p.Data[k])
	}
	return b.String()
}

// decide signs cluster-info with every token that is for it: whoever knows a token knows then that the file is ours.
func decide(info *corev1.ConfigMap, secrets []*corev1.Secret, now time.Time) Plan {
	file, ok := info.Data[configFile]
	if !ok || file == "" {
		return Plan{}
	}
	p := Plan{Data: map[string]string{}}
	for k, v := range info.Data {
		if !strings.HasPrefix(k, signaturePre) {
			p.Data[k] = v
		}
	}
	for _, s := range secrets {
		if id, secret, ok := signs(s, now); ok {
			p.Data[signaturePre+id] = sign(file, id, secret)
		}
	}
	p.Changed = !maps.Equal(p.Data, info.Data)
	return p
}

// signs answers a token that may sign.
func signs(s *corev1.Secret, now time.Time) (id, secret string, ok bool) {
	id, secret = string(s.Data[keyID]), string(s.Data[keySecret])
	if s.Type != secretType || s.DeletionTimestamp != nil || s.Name != namePrefix+id || !idForm.MatchString(id) || !secretForm.MatchString(secret) || string(s.Data[keySigning]) != "true" {
		return "", "", false
	}
	if end, bounded := ends(s); bounded && !end.After(now) {
		return "", "", false
	}
	return id, secret, true
}

// ends answers when a token's time is over; one whose end cannot be read is over.
func ends(s *corev1.Secret) (end time.Time, bounded bool) {
	text := string(s.Data[keyEnd])
	if text == "" {
		return time.Time{}, false
	}
	end, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, true
	}
	return end, true
}

// sign answers a JWS (RFC 7515) over a file with its content left out, by HMAC-SHA256.
func sign(file, id, secret string) string {
	b64 := base64.RawURLEncoding
	head := b64.EncodeToString(fmt.Appendf(nil, `{"alg":"HS256","kid":%q}`, id))
	h := hmac.New(sha256.New, []byte(secret))
	_, _ = h.Write([]byte(head + "." + b64.EncodeToString([]byte(file)))) // a hash takes everything
	return head + ".." + b64.EncodeToString(h.Sum(nil))
}
