// Package server is the kubelet's HTTPS port and its health port.
//
// Flow: a request -> who is it (client certificate, or bearer token by TokenReview) -> may they (SubjectAccessReview) ->
// its handler. Handlers read lifecycle state and the runtime; exec, attach and port-forward are carried through to the
// runtime's own streaming server. Run owns the listeners and returns when they are closed.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/restclient" // counts requests to the API server
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sextant-k8s/sextant/pkg/kubelet/api"
	"github.com/sextant-k8s/sextant/pkg/kubelet/certificate"
	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
	"github.com/sextant-k8s/sextant/pkg/kubelet/usage"
)

// Pods is what the server asks of the pod manager.
type Pods interface {
	Pods() []*v1.Pod
	Pod(namespace, name string) *v1.Pod
	Container(uid, name string, previous bool) (lifecycle.Container, bool)
	SandboxID(uid string) string
}

// Config is what a Server works with.
type Config struct {
	Kubelet  kubeletv1beta1.KubeletConfiguration
	CertDir  string
	NodeName string
	NodeIPs  []string
	// Client is nil without an API server; then nobody can be authenticated by token.
	Client  *api.Client
	Pods    Pods
	CRI     *cri.Client
	Log     *slog.Logger
	Healthy func() error
	Usage   *usage.Reader
	// Machine is the machine's size, by metric name.
	Machine func() map[string]float64
	// System is what the machine is called.
	System func() v1.NodeSystemInfo
	// Cgroup is where a container's cgroup is, by the controller on version 1, and whether it is of version 2.
	Cgroup func(pod *v1.Pod, container string) (at func(controller string) string, v2 bool)
	// Gauges are asked for with the metrics, which Metrics holds.
	Gauges  func() Gauges
	Metrics *metrics.Set
	// RootDir is where checkpoints go, LogRoot where the node's own logs lie; empty is /var/log.
	RootDir, LogRoot string
	Version          string
}

// Server serves one kubelet.
type Server struct {
	cfg   Config
	tls   *tls.Config
	auth  *gate
	https net.Listener
	plain net.Listener
}

// New opens the ports, so that a busy one is an error at once.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg}
	if !*cfg.Kubelet.EnableServer {
		return s, nil
	}
	var err error
	if s.tls, err = s.tlsConfig(); err != nil {
		return nil, err
	}
	s.auth = newGate(cfg)
	addr := net.JoinHostPort(cfg.Kubelet.Address, strconv.Itoa(int(cfg.Kubelet.Port)))
	if s.https, err = net.Listen("tcp", addr); err != nil {
		return nil, fmt.Errorf("serving on %s: %w; give another --port or --address", addr, err)
	}
	if p := *cfg.Kubelet.HealthzPort; p > 0 {
		addr := net.JoinHostPort(cfg.Kubelet.HealthzBindAddress, strconv.Itoa(int(p)))
		if s.plain, err = net.Listen("tcp", addr); err != nil {
			_ = s.https.Close()
			return nil, fmt.Errorf("serving /healthz on %s: %w; give another --healthz-port", addr, err)
		}
	}
	return s, nil
}

// tlsConfig loads the serving certificate, or makes one that signs itself.
func (s *Server) tlsConfig() (*tls.Config, error) {
	k := s.cfg.Kubelet
	certFile, keyFile := k.TLSCertFile, k.TLSPrivateKeyFile
	cluster := certFile == "" && k.ServerTLSBootstrap && s.cfg.Client != nil
	if cluster {
		// Until the cluster has signed, nobody can be served.
		certFile = certificate.Current(s.cfg.CertDir, "kubelet-server")
		keyFile = certFile
	}
	if certFile == "" {
		certFile, keyFile = filepath.Join(s.cfg.CertDir, "kubelet.crt"), filepath.Join(s.cfg.CertDir, "kubelet.key")
		if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
			var ips []net.IP
			for _, ip := range s.cfg.NodeIPs {
				ips = append(ips, net.ParseIP(ip))
			}
			c, key, err := cert.GenerateSelfSignedCertKey(s.cfg.NodeName, ips, []string{s.cfg.NodeName})
			if err != nil {
				return nil, fmt.Errorf("making a serving certificate: %w", err)
			}
			if err := os.MkdirAll(s.cfg.CertDir, 0o755); err != nil {
				return nil, fmt.Errorf("making --cert-dir: %w", err)
			}
			if err := errors.Join(os.WriteFile(certFile, c, 0o644), os.WriteFile(keyFile, key, 0o600)); err != nil {
				return nil, err
			}
		}
	}
	if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil && !cluster {
		return nil, fmt.Errorf("reading --tls-cert-file: %w", err)
	}
	oldest, err := cliflag.TLSVersion(k.TLSMinVersion)
	if err != nil {
		return nil, fmt.Errorf("tlsMinVersion: %w", err)
	}
	suites, err := cliflag.TLSCipherSuites(k.TLSCipherSuites)
	if err != nil {
		return nil, fmt.Errorf("tlsCipherSuites: %w", err)
	}
	var curves []tls.CurveID
	for _, c := range k.TLSCurvePreferences {
		curves = append(curves, tls.CurveID(c))
	}
	cfg := &tls.Config{MinVersion: oldest, CipherSuites: suites, CurvePreferences: curves, NextProtos: []string{"http/1.1"},
		// Read at every handshake: a renewed file is served without a restart.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil && cluster {
				err = errors.New("no serving certificate available for the kubelet")
			}
			return &c, err
		}}
	if ca := k.Authentication.X509.ClientCAFile; ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("reading --client-ca-file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading --client-ca-file %s: no certificate in it", ca)
		}
		cfg.ClientCAs, cfg.ClientAuth = pool, tls.RequestClientCert
	}
	return cfg, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	serve := func(l net.Listener, h http.Handler) {
		if l == nil {
			return
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second, MaxHeaderBytes: 1 << 20,
			ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
		wg.Go(func() { _ = srv.Serve(l) })
		wg.Go(func() {
			<-ctx.Done()
			_ = srv.Close()
		})
	}
	health := http.NewServeMux()
	health.HandleFunc("/healthz", s.healthz)
	health.HandleFunc("/healthz/ping", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	serve(s.plain, health)
	if s.https != nil {
		serve(tls.NewListener(s.https, s.tls), s.counted(s.auth.wrap(s.routes())))
	}
	<-ctx.Done()
	return nil
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if err := s.cfg.Healthy(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, "ok")
}

func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /healthz", s.healthz)
	m.HandleFunc("GET /healthz/{check}", s.healthz)
	m.HandleFunc("GET /pods", s.pods)
	m.HandleFunc("GET /pods/", s.pods)
	m.HandleFunc("GET /configz", s.configz)
	m.HandleFunc("GET /stats/summary", s.summary)
	all := prometheus.NewRegistry()
	all.MustRegister(collector{s})
	m.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{s.cfg.Metrics.Kubelet, all, clientMetrics{}}, promhttp.HandlerOpts{}))
	m.HandleFunc("GET /metrics/resource", s.resourceMetrics)
	m.HandleFunc("GET /metrics/cadvisor", s.cadvisorMetrics)
	m.Handle("GET /metrics/probes", promhttp.HandlerFor(s.cfg.Metrics.Probes, promhttp.HandlerOpts{}))
	m.HandleFunc("POST /checkpoint/{namespace}/{pod}/{container}", s.checkpoint)
	p, on := s.cfg.Kubelet.EnableProfilingHandler, s.cfg.Kubelet.EnableDebuggingHandlers
	if (p == nil || *p) && (on == nil || *on) {
		m.HandleFunc("/debug/pprof/", pprof.Index)
		m.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		m.HandleFunc("/debug/pprof/profile", pprof.Profile)
		m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		m.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	if on := s.cfg.Kubelet.EnableDebuggingHandlers; on != nil && !*on {
		for _, path := range []string{"/containerLogs/", "/exec/", "/attach/", "/portForward/", "/run/", "/runningpods/", "/debug/", "/logs/"} {
			m.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "Debug endpoints are disabled.", http.StatusMethodNotAllowed)
			})
		}
		return m
	}
	m.HandleFunc("GET /logs/", s.files)
	m.HandleFunc("GET /runningpods/", s.pods)
	m.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, v := range []string{"GET", "POST"} {
		m.HandleFunc(v+" /exec/{namespace}/{pod}/{container}", s.exec)
		m.HandleFunc(v+" /exec/{namespace}/{pod}/{uid}/{container}", s.exec)
		m.HandleFunc(v+" /attach/{namespace}/{pod}/{container}", s.attach)
		m.HandleFunc(v+" /attach/{namespace}/{pod}/{uid}/{container}", s.attach)
		m.HandleFunc(v+" /portForward/{namespace}/{pod}", s.portForward)
		m.HandleFunc(v+" /portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	m.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.run)
	return m
}

// counted tells the metrics of every request, allowed or not.
func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, long := asked(r.URL.Path)
		defer s.cfg.Metrics.Asked(r.Method, path, "readwrite", long)()
		if long && wsstream.IsWebSocketRequest(r) {
			s.cfg.Metrics.WebSocket(streamed(r.URL.Path))
		}
		next.ServeHTTP(w, r)
	})
}

// clientMetrics are those of requests to the API server, which client-go counts by itself.
type clientMetrics struct{}

// Gather implements prometheus.Gatherer.
func (clientMetrics) Gather() ([]*dto.MetricFamily, error) {
	all, err := legacyregistry.DefaultGatherer.Gather()
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "rest_client_") }), err
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := v1.PodList{}
	list.Kind, list.APIVersion, list.Items = "PodList", "v1", []v1.Pod{}
	for _, p := range s.cfg.Pods.Pods() {
		list.Items = append(list.Items, *p)
	}
	answer(w, list)
}

func (s *Server) configz(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"kubeletconfig": s.cfg.Kubelet})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
