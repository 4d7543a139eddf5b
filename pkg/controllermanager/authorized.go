package controllermanager

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// guard lets through whom the apiserver allows.
type guard struct {
	*authenticator
	authz kubernetes.Interface
	open  []string // paths that anybody may read; "/x/*" is all below
}

// newGuard answers a guard that asks by the kubeconfigs of its own, if flags name them.
func newGuard(c *Config, client kubernetes.Interface) (*guard, error) {
	authn, err := clientOf("--authentication-kubeconfig", c.AuthnKubeconfig, client)
	if err != nil {
		return nil, err
	}
	authz, err := clientOf("--authorization-kubeconfig", c.AuthzKubeconfig, client)
	if err != nil {
		return nil, err
	}
	a, err := newAuthenticator(c, authn)
	if err != nil {
		return nil, err
	}
	return &guard{authenticator: a, authz: authz, open: c.AlwaysAllow}, nil
}

func clientOf(flag, path string, fallback kubernetes.Interface) (kubernetes.Interface, error) {
	if path == "" {
		return fallback, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", flag, err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", flag, err)
	}
	return client, nil
}

func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.isOpen(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		u, err := g.who(r)
		switch {
		case err != nil:
			slog.Warn("a caller cannot be told", "path", r.URL.Path, "err", err)
			http.Error(w, "Internal Server Error: the apiserver does not say who asks", http.StatusInternalServerError)
			return
		case u == nil:
			http.Error(w, "Unauthorized: send a bearer token or a client certificate", http.StatusUnauthorized)
			return
		}
		may, err := g.may(r, u)
		switch {
		case err != nil:
			slog.Warn("what a caller may do cannot be told", "path", r.URL.Path, "user", u.Username, "err", err)
			http.Error(w, "Internal Server Error: the apiserver does not say who may", http.StatusInternalServerError)
		case !may:
			http.Error(w, fmt.Sprintf("Forbidden: user %q cannot %s path %q", u.Username, strings.ToLower(r.Method), r.URL.Path), http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (g *guard) isOpen(path string) bool {
	for _, o := range g.open {
		if prefix, below := strings.CutSuffix(o, "*"); path == o || below && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

func (g *guard) may(r *http.Request, u *user) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range u.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	got, err := g.authz.AuthorizationV1().SubjectAccessReviews().Create(r.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: u.Username, Groups: u.Groups, UID: u.UID, Extra: extra,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: r.URL.Path, Verb: strings.ToLower(r.Method)},
	}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return got.Status.Allowed, nil
}
