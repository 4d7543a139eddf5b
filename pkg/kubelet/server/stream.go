package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
	"github.com/sextant-k8s/sextant/pkg/kubelet/lifecycle"
)

// target finds the running container a stream is for, and answers the request itself when there is none.
func (s *Server) target(w http.ResponseWriter, r *http.Request) (lifecycle.Container, bool) {
	pod := s.pod(w, r)
	if pod == nil {
		return lifecycle.Container{}, false
	}
	c, ok := s.cfg.Pods.Container(string(pod.UID), r.PathValue("container"), false)
	if !ok || c.State != lifecycle.Running {
		http.Error(w, fmt.Sprintf("container not found (%q)", r.PathValue("container")), http.StatusNotFound)
		return c, false
	}
	return c, true
}

func (s *Server) pod(w http.ResponseWriter, r *http.Request) *v1.Pod {
	pod := s.cfg.Pods.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if pod == nil || r.PathValue("uid") != "" && r.PathValue("uid") != string(pod.UID) {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return nil
	}
	return pod
}

// flag reads a boolean of the query, in either of its spellings.
func flag(q url.Values, names ...string) bool {
	for _, n := range names {
		if b, err := strconv.ParseBool(q.Get(n)); err == nil && b {
			return true
		}
	}
	return false
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	c, ok := s.target(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	want := streams(q)
	resp, err := s.cfg.CRI.Exec(r.Context(), &runtimeapi.ExecRequest{ContainerId: c.ID, Cmd: q["command"], Tty: want.tty,
		Stdin: want.stdin, Stdout: want.stdout, Stderr: want.stderr})
	s.carry(w, r, resp.GetUrl(), &want, err)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	c, ok := s.target(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	want := streams(q)
	resp, err := s.cfg.CRI.Attach(r.Context(), &runtimeapi.AttachRequest{ContainerId: c.ID, Tty: want.tty,
		Stdin: want.stdin, Stdout: want.stdout, Stderr: want.stderr})
	s.carry(w, r, resp.GetUrl(), &want, err)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	pod := s.pod(w, r)
	if pod == nil {
		return
	}
	id := s.cfg.Pods.SandboxID(string(pod.UID))
	if id == "" {
		http.Error(w, "pod does not run", http.StatusNotFound)
		return
	}
	var ports []int32
	for _, p := range r.URL.Query()["port"] {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			http.Error(w, fmt.Sprintf("unable to parse %q as a port", p), http.StatusBadRequest)
			return
		}
		ports = append(ports, int32(n))
	}
	resp, err := s.cfg.CRI.PortForward(r.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
	s.carry(w, r, resp.GetUrl(), nil, err)
}

// carry upgrades the request through to the runtime's streaming server. Runtimes speak SPDY and the old WebSocket
// protocols; the newest ones (which can half-close, or tunnel SPDY) are translated here. want is nil for a port-forward.
func (s *Server) carry(w http.ResponseWriter, r *http.Request, to string, want *wanted, err error) {
	if err != nil {
		http.Error(w, cri.Text(err), http.StatusInternalServerError)
		return
	}
	u, err := url.Parse(to)
	if err != nil {
		http.Error(w, "the runtime named no place to stream from", http.StatusInternalServerError)
		return
	}
	// The caller's credentials are the kubelet's business, not the runtime's.
	r.Header.Del("Authorization")
	w = lingering{w}
	switch {
	case want != nil && wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
		translate(w, r, u, *want)
	case want == nil && wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
		tunnel(w, r, u)
	default:
		proxy.NewUpgradeAwareHandler(u, nil, false, true, proxy.NewErrorResponder(refused{w})).ServeHTTP(w, r)
	}
}

type refused struct{ w http.ResponseWriter }

func (e refused) Error(err error) {
	http.Error(e.w, err.Error(), http.StatusInternalServerError)
}

// run executes one command and answers its output, bounded by the runtime.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	c, ok := s.target(w, r)
	if !ok {
		return
	}
	resp, err := s.cfg.CRI.ExecSync(r.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: r.URL.Query()["cmd"]})
	if err != nil {
		http.Error(w, cri.Text(err), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(append(resp.Stdout, resp.Stderr...))
}
