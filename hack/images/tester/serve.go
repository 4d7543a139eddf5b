package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// server answers over HTTP, HTTPS, UDP and gRPC; a port of 0 is not listened on.
type server struct {
	started   time.Time
	failAfter time.Duration
	delay     time.Duration

	mu   sync.Mutex
	seen []string // the queries of GET /note, in the order they came
}

func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	plain := flags.Int("http", 8080, "port of HTTP")
	secure := flags.Int("tls", 0, "port of HTTPS, under a certificate nobody signed")
	datagrams := flags.Int("udp", 0, "port of UDP")
	rpc := flags.Int("grpc", 0, "port of the gRPC health service")
	s := &server{started: time.Now()}
	pair := flags.String("pair", "", "folder of tls.crt and tls.key to serve HTTPS under, rather than under what nobody signed")
	flags.DurationVar(&s.failAfter, "fail-after", 0, "age from which /healthz answers 500; 0 is never")
	flags.DurationVar(&s.delay, "delay", 0, "how long /healthz thinks")
	if err := flags.Parse(args); err != nil {
		return err
	}
	errs := make(chan error)
	start := func(port int, listen func(address string) error) {
		if port > 0 {
			go func() { errs <- listen(fmt.Sprintf(":%d", port)) }()
		}
	}
	handler := s.handler()
	start(*plain, func(a string) error { return http.ListenAndServe(a, handler) })
	start(*secure, func(a string) error { return listenTLS(a, *pair, handler) })
	start(*datagrams, s.listenUDP)
	start(*rpc, func(a string) error {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return err
		}
		g := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(g, health.NewServer())
		return g.Serve(l)
	})
	return <-errs
}

func (s *server) handler() http.Handler {
	name, err := os.Hostname()
	if err != nil {
		name = err.Error()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/hostname", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
	mux.HandleFunc("/clientip", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get(r.FormValue("key"))) })
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.FormValue("to"), http.StatusFound)
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(s.delay):
		case <-r.Context().Done():
		}
		if age := time.Since(s.started); s.failAfter > 0 && age > s.failAfter {
			http.Error(w, fmt.Sprintf("error: %s", age), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "ok")
	})
	mux.HandleFunc("/note", func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, r.URL.RawQuery+" "+strings.Join(r.Header.Values("X-Note"), ","))
	})
	mux.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprint(w, strings.Join(s.seen, "\n"))
	})
	mux.HandleFunc("/review/", review)
	mux.HandleFunc("/convert", convert)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"method": r.Method, "path": r.URL.RequestURI(), "body": string(body), "pod": name})
	})
	return mux
}

// listenUDP answers each datagram: "hostname" with the name, anything else with itself.
func (s *server) listenUDP(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		answer := strings.TrimSpace(string(buf[:n]))
		if answer == "hostname" {
			answer = name
		}
		if _, err := conn.WriteTo([]byte(answer), from); err != nil {
			return err
		}
	}
}

// listenTLS serves under the pair in a folder, or without one under a certificate made on the spot.
func listenTLS(address, pair string, handler http.Handler) error {
	if pair != "" {
		return http.ListenAndServeTLS(address, filepath.Join(pair, "tls.crt"), filepath.Join(pair, "tls.key"), handler)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), DNSNames: []string{"tester"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	s := &http.Server{Addr: address, Handler: handler, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}}
	return s.ListenAndServeTLS("", "")
}
