package scheduler

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authnclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authzclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/util/cert"
)

// server answers health to anyone and metrics to those the API server allows.
type server struct {
	listener net.Listener
	http     *http.Server
	authn    authnclient.AuthenticationV1Interface
	authz    authzclient.AuthorizationV1Interface
	open     []string
}

// newServer binds the port, so that a busy one is told before anything starts.
func newServer(c *Config, mux *http.ServeMux) (*server, error) {
	s := &server{open: c.AlwaysAllowPaths}
	for _, f := range []struct {
		path string
		set  func(string) error
	}{
		{c.AuthenticationKubeconfig, func(p string) error {
			rc, err := c.client(p)
			if err == nil {
				s.authn, err = authnclient.NewForConfig(rc)
			}
			return err
		}},
		{c.AuthorizationKubeconfig, func(p string) error {
			rc, err := c.client(p)
			if err == nil {
				s.authz, err = authzclient.NewForConfig(rc)
			}
			return err
		}},
	} {
		path := f.path
		if path == "" {
			path = c.Kubeconfig
		}
		if err := f.set(path); err != nil {
			return nil, err
		}
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	pair, err := servingPair(c)
	if err != nil {
		return nil, err
	}
	conf.Certificates = []tls.Certificate{pair}
	if c.ClientCA != "" {
		pem, err := os.ReadFile(c.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("read --client-ca-file: %w", err)
		}
		conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--client-ca-file %s holds no certificate", c.ClientCA)
		}
	}
	address := net.JoinHostPort(c.BindAddress, strconv.Itoa(c.SecurePort))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve on %s: %w; choose another --secure-port", address, err)
	}
	s.listener = tls.NewListener(listener, conf)
	s.http = &http.Server{Handler: s.guard(mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 90 * time.Second}
	return s, nil
}

func servingPair(c *Config) (tls.Certificate, error) {
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return pair, fmt.Errorf("read --tls-cert-file and --tls-private-key-file: %w", err)
		}
		return pair, nil
	}
	if c.CertDir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(c.CertDir, "kube-scheduler.crt"), filepath.Join(c.CertDir, "kube-scheduler.key"))
		if err == nil {
			return pair, nil
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	crt, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.X509KeyPair(crt, key)
}

// run serves until ctx ends.
func (s *server) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.http.Shutdown(grace) != nil {
			_ = s.http.Close()
		}
	})
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// guard lets the open paths through, and asks the API server about callers of the others.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(s.open, r.URL.Path) || slices.Contains(s.open, strings.TrimRight(r.URL.Path, "/")) {
			next.ServeHTTP(w, r)
			return
		}
		user, ok := s.caller(r)
		if !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		review, err := s.authz.SubjectAccessReviews().Create(r.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, Groups: user.Groups, UID: user.UID,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: r.URL.Path, Verb: strings.ToLower(r.Method)},
		}}, metav1.CreateOptions{})
		if err != nil {
			http.Error(w, "authorization is not to be had now", http.StatusInternalServerError)
			return
		}
		if !review.Status.Allowed {
			http.Error(w, fmt.Sprintf("forbidden: User %q cannot %s path %q", user.Username, strings.ToLower(r.Method), r.URL.Path), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) caller(r *http.Request) (authenticationv1.UserInfo, bool) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		subject := r.TLS.VerifiedChains[0][0].Subject
		return authenticationv1.UserInfo{Username: subject.CommonName, Groups: append(subject.Organization, "system:authenticated")}, true
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return authenticationv1.UserInfo{Username: "system:anonymous", Groups: []string{"system:unauthenticated"}}, true
	}
	review, err := s.authn.TokenReviews().Create(r.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated {
		return authenticationv1.UserInfo{}, false
	}
	return review.Status.User, true
}

// routes are the paths on the port.
func (s *Scheduler) routes() *http.ServeMux {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }
	mux.HandleFunc("/healthz", ok)
	mux.HandleFunc("/livez", ok)
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.synced.Load() {
			http.Error(w, "the caches are not filled yet", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "ok")
	})
	metrics := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		s.gauge()
		metrics.ServeHTTP(w, r)
	})
	if s.config.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}
