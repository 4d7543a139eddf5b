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
	"sync"
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

// shop is a registry which counts who asks for what, and lets only "u" into what it has behind the counter.
type shop struct {
	url, host string
	inner     http.Handler

	mu    sync.Mutex
	pulls map[string]int
}

// closed tells whether a repository is.
func closed(repo string) bool { return repo == "secret" || strings.HasPrefix(repo, "provided/") }

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repo, _, manifest := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	if reads := r.Method == http.MethodGet || r.Method == http.MethodHead; reads && manifest {
		if user, pass, _ := r.BasicAuth(); closed(repo) && (user != "u" || pass != "p") {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		s.pulls[repo]++
		s.mu.Unlock()
	}
	s.inner.ServeHTTP(w, r)
}

// asked is how often a repository was asked for an image.
func (s *shop) asked(repo string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pulls[repo]
}

func openShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0))), pulls: map[string]int{}}
	l, err := net.Listen("tcp", registryAt)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(s)
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	s.url, s.host = srv.URL, strings.TrimPrefix(srv.URL, "http://")
	node.ctr(t, "images", "tag", image, s.host+"/base:1")
	node.ctr(t, "images", "push", "--plain-http", s.host+"/base:1")
	node.ctr(t, "images", "rm", s.host+"/base:1")
	return s
}

func TestPulls(t *testing.T) {
	t.Parallel()
	shop := openShop(t)
	spec := func(ref, policy, more string) string {
		return fmt.Sprintf(`{restartPolicy: Never, %scontainers: [{name: c, image: "%s", imagePullPolicy: %s, command: [echo, ran]}]}`, more, ref, policy)
	}
	// Each has an image and a namespace of its own; who may use an image is told apart by both.
	for repo, test := range map[string]func(t *testing.T, s *space, ref string){
		"if-not": func(t *testing.T, s *space, ref string) {
			for i, policy := range []string{"IfNotPresent", "IfNotPresent", "Never"} {
				name := fmt.Sprintf("if-%d", i)
				if got := s.says(name, spec(ref, policy, "")); got != "ran\n" {
					t.Errorf("%s: %q", name, got)
				}
			}
			s.event("if-0", fmt.Sprintf(`Pulled: Successfully pulled image "%s" in `, ref))
			s.event("if-1", fmt.Sprintf(`Pulled: Container image "%s" already present on machine`, ref))
		},
		"always": func(t *testing.T, s *space, ref string) {
			s.says("always-0", spec(ref, "Always", ""))
			first := shop.asked("always")
			s.says("always-1", spec(ref, "Always", ""))
			if second := shop.asked("always"); first == 0 || second == first {
				t.Errorf("the registry was asked %d and %d times", first, second)
			}
		},
		// A volume which is an image is pulled by its own policy.
		"volume": func(t *testing.T, s *space, ref string) {
			if got := s.says("volume", `{restartPolicy: Never, volumes: [{name: v, image: {reference: "`+ref+`", pullPolicy: Always}}], containers: [{name: c, command: [ls, /v/bin/busybox], volumeMounts: [{name: v, mountPath: /v}]}]}`); got != "/v/bin/busybox\n" {
				t.Errorf("image volume: %q", got)
			}
		},
		"secret": func(t *testing.T, s *space, ref string) { shop.strangers(t, s, ref, spec) },
		// A provider opens what its images are; the pods need no secret, and everybody on the node may then use it.
		"provided/app": func(t *testing.T, s *space, ref string) {
			for _, name := range []string{"provided-0", "provided-1"} {
				if got := s.says(name, spec(ref, "IfNotPresent", "")); got != "ran\n" {
					t.Errorf("%s: %q", name, got)
				}
			}
		},
	} {
		if err := labelled(shop.url, "base", repo); err != nil {
			t.Fatal(err)
		}
		t.Run(repo, func(t *testing.T) {
			t.Parallel()
			test(t, newSpace(t), shop.host+"/"+repo+":1")
		})
	}
	n, err := node.admin.CoreV1().Nodes().Get(context.Background(), nodeName, metav1.GetOptions{})
	// At most five names of an image are told, those by digest first.
	told := func(name string) bool { return name == image || strings.HasPrefix(name, shop.host+"/") }
	if err != nil || !slices.ContainsFunc(n.Status.Images, func(i v1.ContainerImage) bool { return slices.ContainsFunc(i.Names, told) }) {
		t.Error("the node does not list its images:", n.Status.Images, err)
	}
}

// strangers have no key to an image which a friend has brought.
func (shop *shop) strangers(t *testing.T, s *space, ref string, spec func(ref, policy, more string) string) {
	refused := func(name, reason, message string) {
		t.Helper()
		s.until(name, "refused by "+reason, func(p *v1.Pod) bool {
			w := container(p, "c").State.Waiting
			return w != nil && w.Reason == reason && strings.HasPrefix(w.Message, message)
		})
	}
	s.create("stranger", spec(ref, "IfNotPresent", ""))
	refused("stranger", "ErrImagePull", "")
	refused("stranger", "ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q", ref))
	auth := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, shop.host, base64.StdEncoding.EncodeToString([]byte("u:p")))
	if _, err := node.admin.CoreV1().Secrets(s.name).Create(context.Background(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pull"}, Type: v1.SecretTypeDockerConfigJson,
		StringData: map[string]string{v1.DockerConfigJsonKey: auth}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const key = "imagePullSecrets: [{name: pull}], "
	s.says("friend", spec(ref, "IfNotPresent", key))
	// That it is present now does not open it to the stranger; the same secret does, without another pull.
	s.create("stranger-2", spec(ref, "IfNotPresent", ""))
	s.create("stranger-3", spec(ref, "Never", ""))
	refused("stranger-2", "ErrImagePull", "")
	refused("stranger-3", "ErrImageNeverPull", "")
	once := shop.asked("secret")
	policies := []string{"IfNotPresent", "Never"}
	for _, policy := range policies {
		s.create("friend-"+strings.ToLower(policy), spec(ref, policy, key))
	}
	for _, policy := range policies {
		s.ended("friend-"+strings.ToLower(policy), v1.PodSucceeded)
	}
	if shop.asked("secret") != once {
		t.Error("the registry was asked again for whom it had let in")
	}
}
