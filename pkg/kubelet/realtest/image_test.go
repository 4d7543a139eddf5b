package realtest

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
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

func TestPulls(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	var closed atomic.Bool
	var pulls atomic.Int32
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	push := func(name string) string {
		ref := host + "/" + name + ":1"
		node.ctr(t, "images", "tag", image, ref)
		node.ctr(t, "images", "push", "--plain-http", ref)
		node.ctr(t, "images", "rm", ref)
		return ref
	}
	ifNot, always, secret := push("if-not"), push("always"), push("secret")
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
	_, err := node.admin.CoreV1().Secrets(s.name).Create(context.Background(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pull"}, Type: v1.SecretTypeDockerConfigJson,
		StringData: map[string]string{v1.DockerConfigJsonKey: auth}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.says("friend", spec(secret, "IfNotPresent", "imagePullSecrets: [{name: pull}], "))
	// What is present now runs for the stranger too, as soon as its back-off is over.
	s.ended("stranger", v1.PodSucceeded)
	n, err := node.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
	// At most five names of an image are told, those by digest first.
	told := func(name string) bool { return name == image || strings.HasPrefix(name, host+"/") }
	if err != nil || !slices.ContainsFunc(n.Status.Images, func(i v1.ContainerImage) bool { return slices.ContainsFunc(i.Names, told) }) {
		t.Error("the node does not list its images:", n.Status.Images, err)
	}
}
