package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// healthPort is what a balancer is told at a Service's healthCheckNodePort.
type healthPort struct {
	service string // namespace/name
	ready   int    // endpoints on this node
}

// healthPorts serves the health check node ports. Sync belongs to the loop; answers come from any goroutine.
type healthPorts struct {
	alive   func() bool
	servers map[uint16]*http.Server // only the loop's

	mu   sync.Mutex
	told map[uint16]healthPort
}

func newHealthPorts(alive func() bool) *healthPorts {
	return &healthPorts{alive: alive, servers: map[uint16]*http.Server{}, told: map[uint16]healthPort{}}
}

// sync serves for the changed Services, and answers the first error: the port may be somebody else's.
func (h *healthPorts) sync(ctx context.Context, parts []part) error {
	want := map[uint16]healthPort{}
	touched := map[string]bool{}
	for _, p := range parts {
		touched[p.key] = true
		if p.service != nil && p.service.HealthPort > 0 {
			want[p.service.HealthPort] = healthPort{service: p.key, ready: desired.ReadyHere(p.slices)}
		}
	}
	h.mu.Lock()
	for port, told := range h.told {
		if now, stays := want[port]; touched[told.service] && (!stays || now.service != told.service) {
			delete(h.told, port)
		}
	}
	for port, now := range want {
		h.told[port] = now
	}
	h.mu.Unlock()
	for port, s := range h.servers {
		if _, stays := h.told[port]; !stays {
			_ = s.Close() // callers of a Service that has gone need no answer
			delete(h.servers, port)
		}
	}
	var first error
	for port := range want {
		if h.servers[port] != nil {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			if first == nil {
				first = fmt.Errorf("serve the health check node port of %s: %w", want[port].service, err)
			}
			continue
		}
		s := &http.Server{Handler: h.handler(port), ReadHeaderTimeout: readTimeout}
		h.servers[port] = s
		go func() {
			if err := s.Serve(l); err != http.ErrServerClosed { //nolint:errorlint // it is never wrapped
				slog.Error("serve a health check node port", "port", port, "error", err)
			}
		}()
	}
	return first
}

// close ends all servers.
func (h *healthPorts) close() {
	for _, s := range h.servers {
		_ = s.Close() // the node's proxy ends, too
	}
}

func (h *healthPorts) handler(port uint16) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h.mu.Lock()
		told, ok := h.told[port]
		h.mu.Unlock()
		if !ok {
			http.Error(w, "no such service", http.StatusNotFound)
			return
		}
		alive := h.alive()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(told.ready))
		if told.ready == 0 || !alive {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		namespace, name, _ := strings.Cut(told.service, "/")
		// A caller that has gone needs no answer.
		_ = json.NewEncoder(w).Encode(map[string]any{
			"service":             map[string]string{"namespace": namespace, "name": name},
			"localEndpoints":      told.ready,
			"serviceProxyHealthy": alive,
		})
	})
}
