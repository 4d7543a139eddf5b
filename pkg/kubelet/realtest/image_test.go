package realtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ctr runs containerd's own client.
func (m *machine) ctr(t *testing.T, args ...string) string {
	t.Helper()
	path, err := program("_out/tools/bin/ctr")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, append([]string{"-a", m.path("run/containerd.sock"), "-n", "k8s.io"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ctr %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// labelled puts an image of a registry there again under a name which it also carries: who may use an image goes by its
// content, so that no two tests may share one.
func labelled(registry, base, name string) error {
	do := func(method, path, kind string, body []byte) ([]byte, error) {
		req, err := http.NewRequest(method, registry+"/v2/"+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", kind)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode > http.StatusCreated {
			err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
		}
		return raw, err
	}
	raw, err := do(http.MethodGet, base+"/manifests/1", "", nil)
	if err != nil {
		return err
	}
	var manifest map[string]any
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return err
	}
	was, ok := manifest["config"].(map[string]any)
	if !ok {
		return fmt.Errorf("not the manifest of one image: %s", raw)
	}
	if raw, err = do(http.MethodGet, fmt.Sprintf("%s/blobs/%s", base, was["digest"]), "", nil); err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		return err
	}
	config["author"] = name
	if raw, err = json.Marshal(config); err != nil {
		return err
	}
	was["digest"], was["size"] = fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), len(raw)
	if _, err := do(http.MethodPost, fmt.Sprintf("%s/blobs/uploads/?digest=%s", name, was["digest"]), "application/octet-stream", raw); err != nil {
		return err
	}
	if raw, err = json.Marshal(manifest); err != nil {
		return err
	}
	_, err = do(http.MethodPut, name+"/manifests/1", manifest["mediaType"].(string), raw)
	return err
}

func TestPulls(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	var closed atomic.Bool
	var pulls atomic.Int32
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	l, err := net.Listen("tcp", registryAt)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); closed.Load() && (user != "u" || pass != "p") {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		if r.Method != http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			pulls.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	node.ctr(t, "images", "tag", image, host+"/base:1")
	node.ctr(t, "images", "push", "--plain-http", host+"/base:1")
	node.ctr(t, "images", "rm", host+"/base:1")
	push := func(name string) string {
		ref := host + "/" + name + ":1"
		if err := labelled(srv.URL, "base", name); err != nil {
			t.Fatal(err)
		}
		return ref
	}
	ifNot, always, secret := push("if-not"), push("always"), push("secret")
	provided := push("provided/app")
	pulls.Store(0)
	spec := func(ref, policy, more string) string {
		return fmt.Sprintf(`{restartPolicy: Never, %scontainers: [{name: c, image: "%s", imagePullPolicy: %s, command: [echo, ran]}]}`, more, ref, policy)
	}
	for i, policy := range []string{"IfNotPresent", "IfNotPresent", "Never"} {
		name := fmt.Sprintf("if-%d", i)
		if got := s.says(name, spec(ifNot, policy, "")); got != "ran\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
	s.event("if-0", fmt.Sprintf(`Pulled: Successfully pulled image "%s" in `, ifNot))
	s.event("if-1", fmt.Sprintf(`Pulled: Container image "%s" already present on machine`, ifNot))
	once := pulls.Load()
	s.says("always-0", spec(always, "Always", ""))
	first := pulls.Load()
	s.says("always-1", spec(always, "Always", ""))
	if once == 0 || first == once || pulls.Load() == first {
		t.Errorf("the registry was asked %d, %d and %d times", once, first, pulls.Load())
	}
	// A volume which is an image is pulled by its own policy.
	if got := s.says("volume", `{restartPolicy: Never, volumes: [{name: v, image: {reference: "`+push("volume")+`", pullPolicy: Always}}], containers: [{name: c, command: [ls, /v/bin/busybox], volumeMounts: [{name: v, mountPath: /v}]}]}`); got != "/v/bin/busybox\n" {
		t.Errorf("image volume: %q", got)
	}
	closed.Store(true)
	s.create("stranger", spec(secret, "IfNotPresent", ""))
	s.until("stranger", "refused", func(p *v1.Pod) bool {
		w := container(p, "c").State.Waiting
		return w != nil && w.Reason == "ErrImagePull"
	})
	s.until("stranger", "waiting to try again", func(p *v1.Pod) bool {
		w := container(p, "c").State.Waiting
		return w != nil && w.Reason == "ImagePullBackOff" && strings.HasPrefix(w.Message, fmt.Sprintf("Back-off pulling image %q", secret))
	})
	auth := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("u:p")))
	_, err = node.admin.CoreV1().Secrets(s.name).Create(context.Background(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pull"}, Type: v1.SecretTypeDockerConfigJson,
		StringData: map[string]string{v1.DockerConfigJsonKey: auth}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.says("friend", spec(secret, "IfNotPresent", "imagePullSecrets: [{name: pull}], "))
	// That it is present now does not open it to the stranger; the same secret does, without another pull.
	s.create("stranger-2", spec(secret, "IfNotPresent", ""))
	s.create("stranger-3", spec(secret, "Never", ""))
	refused := func(name, reason string) {
		s.until(name, "refused", func(p *v1.Pod) bool {
			w := container(p, "c").State.Waiting
			return w != nil && w.Reason == reason
		})
	}
	refused("stranger-2", "ErrImagePull")
	refused("stranger-3", "ErrImageNeverPull")
	once = pulls.Load()
	for _, policy := range []string{"IfNotPresent", "Never"} {
		s.says("friend-"+strings.ToLower(policy), spec(secret, policy, "imagePullSecrets: [{name: pull}], "))
	}
	if pulls.Load() != once {
		t.Error("the registry was asked again for whom it had let in")
	}
	// A provider opens what its images are; the pods need no secret, and everybody on the node may then use it.
	for _, name := range []string{"provided-0", "provided-1"} {
		if got := s.says(name, spec(provided, "IfNotPresent", "")); got != "ran\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
	n, err := node.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
	// At most five names of an image are told, those by digest first.
	told := func(name string) bool { return name == image || strings.HasPrefix(name, host+"/") }
	if err != nil || !slices.ContainsFunc(n.Status.Images, func(i v1.ContainerImage) bool { return slices.ContainsFunc(i.Names, told) }) {
		t.Error("the node does not list its images:", n.Status.Images, err)
	}
}
