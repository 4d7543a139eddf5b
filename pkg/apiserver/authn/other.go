package authn

import (
	"context"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// frontProxy answers who a trusted proxy says the user is. The proxy is known by its certificate alone: without it the
// headers count for nothing.
func (a *Authenticator) frontProxy(r *http.Request) (*authenticator.Response, bool, error) {
	if a.proxyCAs == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	name := first(r, a.c.UserHeaders)
	if name == "" || verify(a.proxyCAs, r.TLS.PeerCertificates) != nil {
		return nil, false, nil
	}
	cn := r.TLS.PeerCertificates[0].Subject.CommonName
	if len(a.c.ProxyNames) > 0 && !slices.Contains(a.c.ProxyNames, cn) {
		return nil, false, fmt.Errorf("x509: subject with cn=%s is not in the allowed list", cn)
	}
	u := &user.DefaultInfo{Name: name, UID: first(r, a.c.UIDHeaders), Extra: map[string][]string{}}
	for _, h := range a.c.GroupHeaders {
		u.Groups = append(u.Groups, r.Header.Values(h)...)
	}
	for h, values := range r.Header {
		for _, p := range a.c.ExtraPrefixes {
			if len(h) > len(p) && strings.EqualFold(h[:len(p)], p) {
				key, err := url.PathUnescape(strings.ToLower(h[len(p):]))
				if err == nil {
					u.Extra[key] = append(u.Extra[key], values...)
				}
			}
		}
	}
	// They are taken off, so that nothing behind takes them for the client's own.
	for _, h := range slices.Concat(a.c.UserHeaders, a.c.UIDHeaders, a.c.GroupHeaders) {
		r.Header.Del(h)
	}
	return &authenticator.Response{User: u}, true, nil
}

func first(r *http.Request, names []string) string {
	for _, n := range names {
		if v := r.Header.Get(n); v != "" {
			return v
		}
	}
	return ""
}

// socketToken reads a token sent as a WebSocket subprotocol, and takes it off the request.
func socketToken(r *http.Request) string {
	const prefix = "base64url.bearer.authorization.k8s.io."
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return ""
	}
	token := ""
	var rest []string
	for _, p := range strings.Split(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",") {
		p = strings.TrimSpace(p)
		enc, ok := strings.CutPrefix(p, prefix)
		if !ok {
			rest = append(rest, p)
			continue
		}
		if b, err := base64.RawURLEncoding.DecodeString(enc); err == nil && token == "" {
			token = string(b)
		}
	}
	if token == "" || len(rest) == 0 {
		return "" // a client must offer a protocol that can be spoken besides
	}
	r.Header.Set("Sec-WebSocket-Protocol", strings.Join(rest, ","))
	return token
}

// A bootstrap token and the group its bearer is in at least.
var bootstrapToken = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

const bootstrapGroup = "system:bootstrappers"

// bootstrap answers whose bootstrap token it is: a secret of kube-system says.
func (a *Authenticator) bootstrap(ctx context.Context, token string, now time.Time) (user.Info, bool) {
	m := bootstrapToken.FindStringSubmatch(token)
	if m == nil {
		return nil, false
	}
	obj, err := a.c.Env.Get(ctx, schema.GroupResource{Resource: "secrets"}, "kube-system", "bootstrap-token-"+m[1])
	if err != nil {
		return nil, false
	}
	s := obj.(*corev1.Secret)
	text := func(k string) string { return string(s.Data[k]) }
	if s.Type != "bootstrap.kubernetes.io/token" || s.DeletionTimestamp != nil || text("token-id") != m[1] ||
		!equal(text("token-secret"), m[2]) || text("usage-bootstrap-authentication") != "true" {
		return nil, false
	}
	if e := text("expiration"); e != "" {
		at, err := time.Parse(time.RFC3339, e)
		if err != nil || !now.Before(at) {
			return nil, false
		}
	}
	groups := []string{bootstrapGroup}
	for _, g := range strings.Split(text("auth-extra-groups"), ",") {
		if g = strings.TrimSpace(g); strings.HasPrefix(g, bootstrapGroup+":") {
			groups = append(groups, g)
		}
	}
	return &user.DefaultInfo{Name: "system:bootstrap:" + m[1], Groups: groups}, true
}

// readStatic reads a file of tokens: token, user, uid, groups.
func readStatic(file string) (map[string]user.Info, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading --token-auth-file: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	out := map[string]user.Info{}
	for line := 1; ; line++ {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading --token-auth-file: %w", err)
		}
		if len(rec) < 3 || rec[0] == "" {
			return nil, fmt.Errorf("--token-auth-file %s, record %d: give token,user,uid and optionally groups", file, line)
		}
		u := &user.DefaultInfo{Name: rec[1], UID: rec[2]}
		if len(rec) > 3 {
			u.Groups = strings.Split(rec[3], ",")
		}
		out[rec[0]] = u
	}
}
