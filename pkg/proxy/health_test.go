package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
)

// A balancer learns at the health check node port whether this node has ready endpoints; those that are leaving do not count.
func TestHealthCheckNodePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	_ = l.Close()
	alive := true
	h := newHealthPorts(func() bool { return alive })
	defer h.close()
	svc := &desired.Service{Key: "x/lb", HealthPort: port}
	slice := func(ready, local bool) []*desired.Slice {
		return []*desired.Slice{{Backends: []desired.Backend{{At: netip.MustParseAddr("10.244.0.5"), Ready: ready, Leaving: !ready, Local: local}}}}
	}
	for _, c := range []struct {
		what string
		part part
		up   bool
		want int
	}{
		{"an endpoint here", part{"x/lb", svc, slice(true, true)}, true, http.StatusOK},
		{"the proxy is stuck", part{"x/lb", svc, slice(true, true)}, false, http.StatusServiceUnavailable},
		{"elsewhere", part{"x/lb", svc, slice(true, false)}, true, http.StatusServiceUnavailable},
		{"leaving", part{"x/lb", svc, slice(false, true)}, true, http.StatusServiceUnavailable},
		{"the service went", part{key: "x/lb"}, true, 0},
	} {
		alive = c.up
		if err := h.sync(context.Background(), []part{c.part}); err != nil {
			t.Fatal(err)
		}
		got, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			if c.want != 0 {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		body, _ := io.ReadAll(got.Body)
		_ = got.Body.Close()
		if got.StatusCode != c.want || !strings.Contains(string(body), `"name":"lb"`) {
			t.Errorf("%s: %s %s, want %d", c.what, got.Status, body, c.want)
		}
	}
}
