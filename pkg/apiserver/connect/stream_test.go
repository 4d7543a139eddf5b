package connect

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// world answers one pod on one node.
type world struct {
	kind.Env
	pod  corev1.Pod
	node corev1.Node
}

func (w *world) GetFresh(_ context.Context, gr schema.GroupResource, _, name string) (kind.Object, error) {
	switch {
	case gr.Resource == "nodes" && name == w.node.Name:
		return &w.node, nil
	case gr.Resource == "pods" && name == w.pod.Name:
		return &w.pod, nil
	}
	return nil, apierrors.NewNotFound(gr, name)
}

// kubelet speaks what a runtime of 2022 speaks: SPDY, and no v5.channel.k8s.io. It runs one command: it says what it was
// asked, echoes its input to the end, and fails with the code it is told.
type kubelet struct {
	mu   sync.Mutex
	seen []string // the upgrade and path of every request
}

func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	k.seen = append(k.seen, r.Header.Get("Upgrade")+" "+r.URL.Path)
	k.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/containerLogs/") {
		_, _ = fmt.Fprintf(w, "the log %s", r.URL.RawQuery)
		return
	}
	if !strings.HasPrefix(r.Header.Get("Upgrade"), "SPDY") {
		http.Error(w, "unknown protocol", http.StatusForbidden)
		return
	}
	protocols := []string{"v4.channel.k8s.io"}
	ports := strings.HasPrefix(r.URL.Path, "/portForward/")
	if ports {
		protocols = []string{"portforward.k8s.io"}
	}
	if _, err := httpstream.Handshake(r, w, protocols); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 10)
	conn := streamspdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close() //nolint:errcheck // the test is over
	if ports {
		k.forward(conn, streams)
		return
	}
	k.run(r.URL.Query(), streams)
}

func (k *kubelet) run(q url.Values, streams <-chan httpstream.Stream) {
	want := 1 // the error stream
	for _, name := range []string{"input", "output", "error"} {
		if q.Get(name) == "1" {
			want++
		}
	}
	if q.Get("tty") == "1" {
		want++
	}
	by := map[string]httpstream.Stream{}
	for range want {
		s := <-streams
		by[s.Headers().Get("streamType")] = s
	}
	out := by["stdout"]
	_, _ = fmt.Fprintf(out, "ran %s\n", strings.Join(q["command"], " "))
	if size := by["resize"]; size != nil {
		var ts struct{ Width, Height int }
		if json.NewDecoder(size).Decode(&ts) == nil {
			_, _ = fmt.Fprintf(out, "size %dx%d\n", ts.Width, ts.Height)
		}
	}
	if in := by["stdin"]; in != nil {
		_, _ = io.Copy(out, in)
		_, _ = fmt.Fprint(out, "\nend of input")
	}
	if e := by["stderr"]; e != nil {
		_, _ = fmt.Fprint(e, "complaint")
	}
	status := metav1.Status{Status: metav1.StatusSuccess}
	if n := len(q["command"]); n > 1 && q["command"][0] == "fail" {
		status = metav1.Status{Status: metav1.StatusFailure, Reason: "NonZeroExitCode", Message: "failed", Details: &metav1.StatusDetails{
			Causes: []metav1.StatusCause{{Type: "ExitCode", Message: q["command"][1]}},
		}}
	}
	_ = json.NewEncoder(by["error"]).Encode(status)
	for _, s := range by {
		_ = s.Close()
	}
	time.Sleep(100 * time.Millisecond) // what was written goes out before the connection
}

// forward says on every data stream which port it is for, in answer to a line.
func (k *kubelet) forward(conn httpstream.Connection, streams <-chan httpstream.Stream) {
	for {
		select {
		case s := <-streams:
			if s.Headers().Get("streamType") == "error" {
				_ = s.Close()
				continue
			}
			go func() {
				buf := make([]byte, 100)
				n, _ := s.Read(buf)
				_, _ = fmt.Fprintf(s, "port %s heard %s", s.Headers().Get("port"), buf[:n])
				_ = s.Close()
			}()
		case <-conn.CloseChan():
			return
		}
	}
}

// serve starts the kubelet and a server before it, and answers the server's URL.
func serve(t *testing.T, features ...string) (*kubelet, string) {
	t.Helper()
	return serveTrusting(t, "", features...)
}

// serveTrusting is serve with a file of whom kubelets' certificates are to be from.
func serveTrusting(t *testing.T, ca string, features ...string) (*kubelet, string) {
	t.Helper()
	k := &kubelet{}
	back := httptest.NewTLSServer(k)
	t.Cleanup(back.Close)
	host, port, _ := strings.Cut(strings.TrimPrefix(back.URL, "https://"), ":")
	number, _ := strconv.Atoi(port)
	w := &world{
		pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}, Spec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "c"}}}},
		node: corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}, DeclaredFeatures: features,
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(number)}},
		}},
	}
	s, err := New(Config{CAFile: ca, AddressTypes: []string{"Hostname", "InternalIP"}, WriteError: func(w http.ResponseWriter, _ *http.Request, err error) {
		code := http.StatusInternalServerError
		if status, ok := err.(apierrors.APIStatus); ok {
			code = int(status.Status().Code)
		}
		http.Error(w, err.Error(), code)
	}})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // pod and subresource
		c := &kind.ConnectRequest{Op: &kind.Op{Ctx: r.Context(), Env: w, Namespace: "n", Name: parts[0]}, Writer: rw, HTTP: r}
		map[string]kind.ConnectFunc{"exec": s.Exec, "attach": s.Attach, "portforward": s.PortForward, "log": s.Log}[parts[1]](c)
	}))
	front.StartTLS()
	t.Cleanup(front.Close)
	return k, front.URL
}

func (k *kubelet) requests() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.seen)
}

func config(address string) *rest.Config {
	return &rest.Config{Host: address, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

// window is a terminal of one size.
type window struct{ told bool }

func (w *window) Next() *remotecommand.TerminalSize {
	if w.told {
		return nil
	}
	w.told = true
	return &remotecommand.TerminalSize{Width: 80, Height: 24}
}

// TestExec runs commands over both protocols; the kubelet is spoken SPDY to in either case.
func TestExec(t *testing.T) {
	k, address := serve(t)
	for name, dial := range map[string]func(u string) (remotecommand.Executor, error){
		"websocket": func(u string) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(config(address), "GET", u)
		},
		"spdy": func(u string) (remotecommand.Executor, error) {
			to, err := url.Parse(u)
			if err != nil {
				return nil, err
			}
			return remotecommand.NewSPDYExecutor(config(address), "POST", to)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(query string, o remotecommand.StreamOptions) (string, string, error) {
				t.Helper()
				e, err := dial(address + "/p/exec?" + query)
				if err != nil {
					t.Fatal(err)
				}
				var out, complaints bytes.Buffer
				o.Stdout = &out
				if !o.Tty {
					o.Stderr = &complaints
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				err = e.StreamWithContext(ctx, o)
				return out.String(), complaints.String(), err
			}
			out, complaints, err := run("command=say&command=it&stdout=true&stderr=true", remotecommand.StreamOptions{})
			if err != nil || out != "ran say it\n" || complaints != "complaint" {
				t.Errorf("a command answers %q, %q, %v", out, complaints, err)
			}
			out, _, err = run("command=cat&stdin=true&stdout=true&stderr=true", remotecommand.StreamOptions{Stdin: strings.NewReader("what goes in")})
			if err != nil || out != "ran cat\nwhat goes in\nend of input" {
				t.Errorf("input comes back as %q, %v", out, err)
			}
			out, _, err = run("command=top&stdout=true&tty=true", remotecommand.StreamOptions{Tty: true, TerminalSizeQueue: &window{}})
			if err != nil || !strings.Contains(out, "size 80x24") {
				t.Errorf("a terminal shows %q, %v", out, err)
			}
			_, _, err = run("command=fail&command=7&stdout=true&stderr=true", remotecommand.StreamOptions{})
			var code exec.CodeExitError
			if !errors.As(err, &code) || code.Code != 7 {
				t.Errorf("a command that fails with 7 ends with %v", err)
			}
		})
	}
	for _, r := range k.requests() {
		if r != "SPDY/3.1 /exec/n/p/c" {
			t.Errorf("the kubelet was asked %q", r)
		}
	}
}

// TestExecThrough leaves the newest protocol to a kubelet that says it takes it.
func TestExecThrough(t *testing.T) {
	k, address := serve(t, "ExtendWebSocketsToKubelet")
	e, err := remotecommand.NewWebSocketExecutor(config(address), "GET", address+"/p/exec?command=x&stdout=true")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); err == nil {
		t.Error("this kubelet does not, and yet it worked")
	}
	if got := k.requests(); !slices.Equal(got, []string{"websocket /exec/n/p/c"}) {
		t.Errorf("the kubelet was asked %q", got)
	}
}

// TestPortForward talks to a port over both protocols.
func TestPortForward(t *testing.T) {
	k, address := serve(t)
	to, err := url.Parse(address + "/p/portforward")
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config(address))
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(to, config(address))
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]httpstream.Dialer{
		"spdy": spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", to), "websocket": tunnel,
	} {
		t.Run(name, func(t *testing.T) {
			conn, _, err := d.Dial("portforward.k8s.io")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close() //nolint:errcheck // the test is over
			h := http.Header{"Streamtype": {"error"}, "Port": {"8080"}, "Requestid": {"1"}}
			if _, err := conn.CreateStream(h); err != nil {
				t.Fatal(err)
			}
			h.Set("streamType", "data")
			s, err := conn.CreateStream(h)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(s); err != nil || string(b) != "port 8080 heard hello" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	for _, r := range k.requests() {
		if r != "SPDY/3.1 /portForward/n/p" {
			t.Errorf("the kubelet was asked %q", r)
		}
	}
}

// TestLog hands on what the kubelet says, and refuses what is wrong before it is asked.
func TestLog(t *testing.T) {
	_, address := serve(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: insecure()}}
	for path, want := range map[string]string{
		"/p/log":                       "200 the log ",
		"/p/log?container=c":           "200 the log ",
		"/p/log?tailLines=3":           "200 the log tailLines=3",
		"/p/log?limitBytes=5":          "200 the l",
		"/p/log?follow=1":              "200 the log follow=true",
		"/p/log?follow=True":           "200 the log follow=true",
		"/p/log?container=other":       "400 container other is not valid for pod p",
		"/p/log?tailLines=-1":          "422 ",
		"/p/log?sinceSeconds=x":        "400 ",
		"/gone/log":                    "404 ",
		"/p/exec?container=other":      "400 container other is not valid for pod p",
		"/p/exec?container=c&command=": "400 ",
	} {
		resp, err := client.Get(address + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if got := fmt.Sprintf("%d %s", resp.StatusCode, b); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// TestLogOfStranger asks for the logs of a kubelet whose certificate is nobody's: only who says so gets them.
func TestLogOfStranger(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "another"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, address := serveTrusting(t, ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: insecure()}}
	for query, want := range map[string]int{"": 500, "?insecureSkipTLSVerifyBackend=false": 500, "?insecureSkipTLSVerifyBackend=true": 200, "?insecureSkipTLSVerifyBackend=True": 200} {
		resp, err := client.Get(address + "/p/log" + query)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("log%s: %d, want %d", query, resp.StatusCode, want)
		}
	}
}

func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
