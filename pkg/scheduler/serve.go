package scheduler

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	authnclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authzclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/cert"
)

// server answers health to anyone, and the rest to those the API server allows.
type server struct {
	listener net.Listener
	http     *http.Server
	port     int
	// fingerprint of the serving certificate, SHA-256.
	fingerprint [sha256.Size]byte
	authn       authnclient.AuthenticationV1Interface
	authz       authzclient.AuthorizationV1Interface
	metrics     *metrics
	open        []string
	// authorities are those whose client certificates are taken.
	authorities atomic.Pointer[x509.CertPool]

	mu      sync.Mutex
	callers map[string]known // by token
	rights  map[string]known // by user, groups, verb and path
}

// known is an answer of the API server, good for a while.
type known struct {
	user  authenticationv1.UserInfo
	ok    bool
	until time.Time
}

// keepAnswers is how long an answer of the API server about a caller is good, and mostAnswers how many are kept.
const (
	keepAnswers = 10 * time.Second
	mostAnswers = 1024
)

// newServer binds the port, so that a busy one is told before anything starts.
func newServer(c *Config, mux *http.ServeMux) (*server, error) {
	s := &server{open: c.AlwaysAllowPaths, port: c.SecurePort, callers: map[string]known{}, rights: map[string]known{}}
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
	conf, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	s.fingerprint = sha256.Sum256(conf.Certificates[0].Certificate[0])
	if c.ClientCA != "" {
		pem, err := os.ReadFile(c.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("read --client-ca-file: %w", err)
		}
		if !s.trust(pem) {
			return nil, fmt.Errorf("--client-ca-file %s holds no certificate", c.ClientCA)
		}
	}
	// A certificate is asked for and verified when the request needs to know its caller, for the authorities may be learnt later.
	conf.ClientAuth = tls.RequestClientCert
	address := net.JoinHostPort(c.BindAddress, strconv.Itoa(c.SecurePort))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve on %s: %w; choose another --secure-port", address, err)
	}
	s.listener = tls.NewListener(listener, conf)
	s.http = &http.Server{Handler: s.guard(mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 90 * time.Second}
	return s, nil
}

// tlsConfig answers how the port speaks.
func tlsConfig(c *Config) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	switch c.MinTLS {
	case "", "VersionTLS12":
	case "VersionTLS13":
		conf.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("--tls-min-version %s: want VersionTLS12 or VersionTLS13", c.MinTLS)
	}
	for _, name := range c.CipherSuites {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("--tls-cipher-suites: %s is unknown or not safe", name)
		}
		conf.CipherSuites = append(conf.CipherSuites, tls.CipherSuites()[i].ID)
	}
	pair, err := servingPair(c)
	if err != nil {
		return nil, err
	}
	conf.Certificates = []tls.Certificate{pair}
	// Of several certificates, TLS takes the first that fits the name the caller asks for, and the first of all where none does.
	for i := 0; i < len(c.SNICerts); i += 2 {
		if i+1 == len(c.SNICerts) {
			return nil, fmt.Errorf("--tls-sni-cert-key %s: want certificate,key", c.SNICerts[i])
		}
		key, _, _ := strings.Cut(c.SNICerts[i+1], ":")
		pair, err := tls.LoadX509KeyPair(c.SNICerts[i], key)
		if err != nil {
			return nil, fmt.Errorf("read --tls-sni-cert-key: %w", err)
		}
		conf.Certificates = append(conf.Certificates, pair)
	}
	if c.NoHTTP2 {
		conf.NextProtos = []string{"http/1.1"}
	}
	return conf, nil
}

func (s *server) trust(pem []byte) bool {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return false
	}
	s.authorities.Store(pool)
	return true
}

// learnAuthorities reads, unless a flag named them, the authorities of client certificates where the API server publishes them, and
// looks again every minute.
func (s *server) learnAuthorities(ctx context.Context, core coreclient.CoreV1Interface) {
	if s.authorities.Load() != nil {
		return
	}
	wait := time.Second
	for ctx.Err() == nil {
		config, err := core.ConfigMaps(metav1.NamespaceSystem).Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
		if err == nil && s.trust([]byte(config.Data["client-ca-file"])) {
			wait = time.Minute
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Minute)
	}
}

// advertise writes on the lease where the port is, so that ctl finds it.
func (s *Scheduler) advertise(ctx context.Context) {
	if s.server == nil {
		return
	}
	host := net.ParseIP(s.config.BindAddress)
	if found, err := utilnet.ResolveBindAddress(host); err == nil {
		host = found
	}
	if host == nil || host.IsUnspecified() {
		host = net.IPv4(127, 0, 0, 1)
	}
	address := net.JoinHostPort(host.String(), strconv.Itoa(s.server.port))
	fingerprint := hex.EncodeToString(s.server.fingerprint[:])
	for ctx.Err() == nil {
		leases := s.leases.Leases(s.config.LeaseNamespace)
		lease, err := leases.Get(ctx, s.config.LeaseName, metav1.GetOptions{})
		if err == nil {
			if lease.Annotations[addressAnnotation] == address && lease.Annotations[fingerprintAnnotation] == fingerprint {
				return
			}
			metav1.SetMetaDataAnnotation(&lease.ObjectMeta, addressAnnotation, address)
			metav1.SetMetaDataAnnotation(&lease.ObjectMeta, fingerprintAnnotation, fingerprint)
			if _, err = leases.Update(ctx, lease, metav1.UpdateOptions{}); err == nil {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
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
		s.metrics.authn.WithLabelValues(result(ok, "success", "failure")).Inc()
		if !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		verb := strings.ToLower(r.Method)
		allowed, err := s.may(r.Context(), user, verb, r.URL.Path)
		s.metrics.authz.WithLabelValues(result(allowed, "allowed", "denied")).Inc()
		switch {
		case err != nil:
			http.Error(w, "authorization is not to be had now", http.StatusInternalServerError)
		case !allowed:
			http.Error(w, fmt.Sprintf("forbidden: User %q cannot %s path %q", user.Username, verb, r.URL.Path), http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func result(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

// may asks whether a user may, and remembers the answer for a while.
func (s *server) may(ctx context.Context, user authenticationv1.UserInfo, verb, path string) (bool, error) {
	key := strings.Join(append([]string{user.Username, user.UID, verb, path}, user.Groups...), "\x00")
	if old, ok := s.recall(s.rights, key); ok {
		return old.ok, nil
	}
	review, err := s.authz.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, Groups: user.Groups, UID: user.UID,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: verb},
	}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	s.remember(s.rights, key, known{ok: review.Status.Allowed})
	return review.Status.Allowed, nil
}

func (s *server) recall(m map[string]known, key string) (known, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := m[key]
	return old, ok && time.Now().Before(old.until)
}

func (s *server) remember(m map[string]known, key string, k known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(m) >= mostAnswers {
		clear(m)
	}
	k.until = time.Now().Add(keepAnswers)
	m[key] = k
}

// caller answers who asks: by certificate, by token, or anonymously. A credential that proves nothing is no anonymous caller.
func (s *server) caller(r *http.Request) (authenticationv1.UserInfo, bool) {
	if pool := s.authorities.Load(); r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && pool != nil {
		certs := r.TLS.PeerCertificates
		between := x509.NewCertPool()
		for _, c := range certs[1:] {
			between.AddCert(c)
		}
		options := x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := certs[0].Verify(options); err != nil {
			return authenticationv1.UserInfo{}, false
		}
		subject := certs[0].Subject
		return authenticationv1.UserInfo{Username: subject.CommonName, Groups: append(slices.Clone(subject.Organization), "system:authenticated")}, true
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return authenticationv1.UserInfo{Username: "system:anonymous", Groups: []string{"system:unauthenticated"}}, true
	}
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(token)))
	if old, ok := s.recall(s.callers, key); ok {
		return old.user, old.ok
	}
	review, err := s.authn.TokenReviews().Create(r.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, false
	}
	s.remember(s.callers, key, known{user: review.Status.User, ok: review.Status.Authenticated})
	return review.Status.User, review.Status.Authenticated
}

// routes are the paths on the port.
func (s *Scheduler) routes() *http.ServeMux {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }
	mux.HandleFunc("/healthz", ok)
	mux.HandleFunc("/livez", ok)
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		standby := s.config.delayWatches && s.config.LeaderElect && !s.leading.Load()
		if !s.synced.Load() && !standby {
			http.Error(w, strings.TrimSuffix("the caches are not filled yet: "+s.missing(), ": "), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "ok")
	})
	mux.HandleFunc("GET /explain/namespaces/{namespace}/pods/{name}", s.explainPod)
	mux.HandleFunc("POST /explain/what-if", s.whatIf)
	mux.HandleFunc("/configz", s.configz)
	metrics := promhttp.HandlerFor(s.metrics.gatherer(), promhttp.HandlerOpts{})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		s.gauge()
		metrics.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /metrics/resources", s.metricsResources)
	if s.config.Profiling {
		if s.config.Contention {
			runtime.SetBlockProfileRate(1_000_000) // one sample a millisecond blocked
		}
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// configz answers the configuration in force.
func (s *Scheduler) configz(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"kubescheduler.config.k8s.io": s.config.file})
}
