package credential

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, image string
		want           bool
	}{
		{"gcr.io", "gcr.io/a/b:1", true}, {"gcr.io/a", "gcr.io/a/b", true}, {"gcr.io/x", "gcr.io/a/b", false},
		{"*.azurecr.io", "me.azurecr.io/a", true}, {"*.azurecr.io", "azurecr.io/a", false}, {"*.io", "a.b.io/x", false},
		{"*.*.registry.io", "a.b.registry.io/x", true}, {"app*.k8s.io", "app5.k8s.io/x", true}, {"k8s.*", "k8s.io/x", true},
		{"registry.io:8080/path", "registry.io:8080/path/x@sha256:ab", true}, {"registry.io:8080/path", "registry.io/path/x", false}, {"registry.io", "registry.io:8080/x", false},
		{"https://index.docker.io/v1/", "busybox", true}, {"docker.io", "library/busybox:1", true}, {"https://r.example/v2/team", "r.example/team/x", true}, {"docker.io", "localhost/busybox", false},
		{"registry.local:5000", "registry.local:5000/a/b:1", true}, {"registry.local", "registry.local.evil/a", false},
	} {
		if got := len(fitting([]entry{{pattern: c.pattern}}, c.image)) == 1; got != c.want {
			t.Errorf("%s for %s: %v", c.pattern, c.image, got)
		}
	}
}

// accounts has one service account, whose tokens are numbered.
type accounts struct{ tokens int }

func (a *accounts) Token(_ context.Context, ns, account string, req *authv1.TokenRequest) (*authv1.TokenRequest, error) {
	a.tokens++
	req.Status = authv1.TokenRequestStatus{Token: fmt.Sprintf("%s/%s/%s/%d", ns, account, req.Spec.Audiences[0], a.tokens), ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))}
	return req, nil
}

func (a *accounts) ServiceAccount(_ context.Context, ns, name string) (*v1.ServiceAccount, error) {
	if name != "robot" {
		return nil, apierrors.NewNotFound(v1.Resource("serviceaccounts"), name)
	}
	return &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: "sa-uid", Annotations: map[string]string{"role": "reader"}}}, nil
}

// plugin is a folder with a provider which writes down every request and answers with a user named after the registry.
func plugin(t *testing.T, answer, tokens string) (Config, func() []string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\ncat >> " + dir + "/asked; echo >> " + dir + "/asked\ncat <<END\n" + answer + "\nEND\n"
	config := `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: helper
  matchImages: ["*.example:5000", "docker.io"]
  defaultCacheDuration: 1h
  apiVersion: credentialprovider.kubelet.k8s.io/v1
` + tokens
	for name, text := range map[string]string{"helper": script, "config.yaml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return Config{Path: filepath.Join(dir, "config.yaml"), Bin: dir, Objects: &accounts{}, Log: slog.New(slog.DiscardHandler)}, func() []string {
		raw, _ := os.ReadFile(dir + "/asked")
		return strings.Split(strings.TrimSpace(string(raw)), "\n")
	}
}

func answer(kind, more string) string {
	return `{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"` + kind + `",` + more +
		`"auth":{"*.example:5000":{"username":"u","password":"p"},"*.example:5000/deep":{"username":"deep","password":"p"},"other.io":{"username":"no"}}}`
}

func secretOf(name, ns string, auths map[string]string) *v1.Secret {
	var rows []string
	for host, both := range auths {
		rows = append(rows, fmt.Sprintf(`%q:{"auth":%q}`, host, base64.StdEncoding.EncodeToString([]byte(both))))
	}
	return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, UID: "uid"}, Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(`{"auths":{` + strings.Join(rows, ",") + `}}`)}}
}

func users(list []Credential) string {
	var out []string
	for _, c := range list {
		out = append(out, c.Username+" of "+c.String())
	}
	return strings.Join(out, ", ")
}

func TestOrder(t *testing.T) {
	cfg, asked := plugin(t, answer("Image", ""), "")
	own := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(own, []byte(`{"auths":{"r.example:5000":{"username":"node","password":"x"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Docker = []string{"/nowhere", own}
	k, err := NewKeyring(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}}
	got := users(k.For(t.Context(), pod, "r.example:5000/deep/app:1", []*v1.Secret{secretOf("s", "n", map[string]string{"r.example:5000": "wide:1", "r.example:5000/deep": "narrow:2", "else": "no:3"})}))
	if want := "narrow of secret n/s, wide of secret n/s, node of the node's, deep of the node's, u of the node's"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for range 3 {
		k.For(t.Context(), pod, "r.example:5000/deep/app:2", nil)
	}
	if n := len(asked()); n != 1 {
		t.Errorf("asked %d times: %s", n, asked())
	}
	k.For(t.Context(), pod, "r.example:5000/other", nil)
	if got := asked(); len(got) != 2 || got[1] != `{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"r.example:5000/other"}` {
		t.Errorf("requests: %s", got)
	}
	if got := k.For(t.Context(), pod, "elsewhere/x", nil); len(got) != 0 || len(asked()) != 3 {
		t.Errorf("%s %s", users(got), asked()) // docker.io matches; nothing it answers fits
	}
	if got := k.For(t.Context(), pod, "r.else/x", nil); len(got) != 0 || len(asked()) != 3 {
		t.Errorf("%s %s", users(got), asked())
	}
}

func TestCaches(t *testing.T) {
	for _, c := range []struct {
		kind, more, tokens string
		want               int // after two images of one registry, one of another, and all of it by a second pod
	}{
		{"Image", "", "", 3}, {"Registry", "", "", 2}, {"Global", "", "", 1}, {"Image", `"cacheDuration":"0s",`, "", 6}, {"Bogus", "", "", 6},
		{"Global", "", "  tokenAttributes: {serviceAccountTokenAudience: a, cacheType: ServiceAccount, requireServiceAccount: true}\n", 1},
		{"Global", "", "  tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: true}\n", 2},
	} {
		cfg, asked := plugin(t, answer(c.kind, c.more), c.tokens)
		k, err := NewKeyring(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: "uid-x"}, Spec: v1.PodSpec{ServiceAccountName: "robot"}}
			if name == "b" {
				pod.UID = "uid-y"
			}
			for _, image := range []string{"r.example:5000/x", "r.example:5000/y", "s.example:5000/x"} {
				if got := k.For(t.Context(), pod, image, nil); len(got) == 1 == (c.kind == "Bogus") {
					t.Errorf("%+v: %s", c, users(got))
				}
			}
		}
		if got := len(asked()); got != c.want {
			t.Errorf("%+v: asked %d times", c, got)
		}
	}
}

func TestServiceAccounts(t *testing.T) {
	cfg, asked := plugin(t, answer("Image", ""), "  tokenAttributes: {serviceAccountTokenAudience: aud, cacheType: ServiceAccount, requireServiceAccount: true, requiredServiceAccountAnnotationKeys: [role], optionalServiceAccountAnnotationKeys: [zone]}\n")
	k, err := NewKeyring(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "1"}, Spec: v1.PodSpec{ServiceAccountName: "robot"}}
	if got := users(k.For(t.Context(), pod, "r.example:5000/x", nil)); got != "u of service account n/robot" {
		t.Error(got)
	}
	if got := asked()[0]; !strings.Contains(got, `"serviceAccountToken":"n/robot/aud/1","serviceAccountAnnotations":{"role":"reader"}`) {
		t.Error(got)
	}
	for _, name := range []string{"", "unknown"} { // a static pod has none
		other := pod.DeepCopy()
		other.Spec.ServiceAccountName = name
		if got := k.For(t.Context(), other, "r.example:5000/x", nil); len(got) != 0 || len(asked()) != 1 {
			t.Errorf("%q: %s %s", name, users(got), asked())
		}
	}
}

// failures are those counted of all plugins.
func failures(t *testing.T, m *metrics.Set) float64 {
	t.Helper()
	families, err := m.Kubelet.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0.
	for _, f := range families {
		if f.GetName() == "kubelet_credential_provider_plugin_errors" {
			for _, c := range f.Metric {
				n += c.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestFaults(t *testing.T) {
	secret := `{"kind":"CredentialProviderResponse","auth": password-1234`
	for _, text := range []string{secret, `{"kind":"Other"}`, `{}`, strings.Repeat("x", answerMost+9)} {
		cfg, _ := plugin(t, text, "")
		var said strings.Builder
		cfg.Log, cfg.Metrics = slog.New(slog.NewTextHandler(&said, nil)), metrics.New("n", "v")
		k, err := NewKeyring(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.For(t.Context(), &v1.Pod{}, "r.example:5000/x", nil); len(got) != 0 {
			t.Error(users(got))
		}
		if n := failures(t, cfg.Metrics); n != 1 {
			t.Errorf("%v failures are counted", n)
		}
		if !strings.Contains(said.String(), "asking a credential provider") || strings.Contains(said.String(), "1234") {
			t.Errorf("the log says %s", said.String())
		}
	}
}

func TestConfig(t *testing.T) {
	cfg, _ := plugin(t, "", "")
	good, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, with, want string }{
		{"", "", ""},
		{"kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", ""},
		{"CredentialProviderConfig", "Pod", "want kind CredentialProviderConfig"},
		{"  defaultCacheDuration: 1h\n", "", "providers[0].defaultCacheDuration"},
		{"name: helper", "name: ../helper", "providers[0].name"},
		{"name: helper", "name: other", "is not a program"},
		{"credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v7", "providers[0].apiVersion"},
		{`["*.example:5000", "docker.io"]`, `[]`, "providers[0].matchImages"},
		{`["*.example:5000", "docker.io"]`, `["[.io"]`, "not a pattern"},
		{"matchImages", "matchimage", "unknown field"},
	} {
		if err := os.WriteFile(cfg.Path, []byte(strings.Replace(string(good), c.old, c.with, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := NewKeyring(cfg)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s -> %s: %v", c.old, c.with, err)
		}
	}
	if err := os.WriteFile(cfg.Path, []byte(string(good)+"  tokenAttributes: {cacheType: Best, requireServiceAccount: false, requiredServiceAccountAnnotationKeys: [a, a]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = NewKeyring(cfg)
	for _, want := range []string{"serviceAccountTokenAudience", "cacheType", "requireServiceAccount is false", "twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := NewKeyring(Config{Path: cfg.Path}); err == nil {
		t.Error("a configuration without programs is taken")
	}
}

func TestRecords(t *testing.T) {
	root, log := t.TempDir(), slog.New(slog.DiscardHandler)
	open := func(p kubeletv1beta1.ImagePullCredentialsVerificationPolicy, allowed ...string) *Records {
		r, err := NewRecords(root, p, allowed, log)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	from := func(uid, hash string) Credential {
		return Credential{Secret: &kubeletv1beta1.ImagePullSecret{UID: uid, Namespace: "n", Name: "s", CredentialHash: hash}}
	}
	robot := Credential{Account: &kubeletv1beta1.ImagePullServiceAccount{UID: "1", Namespace: "n", Name: "robot"}}
	have := func(c ...Credential) func() []Credential { return func() []Credential { return c } }
	r := open("")
	for _, image := range []string{"r.io/open:1", "r.io/secret:1", "r.io/robot:1"} {
		if err := r.Begin(image); err != nil {
			t.Fatal(err)
		}
		if r.May(image, "sha256:new", have()) {
			t.Errorf("%s is taken for one that was here before", image)
		}
	}
	r.Done("r.io/open:1", "sha256:open", nil)
	a := from("1", "h1")
	r.Done("r.io/secret:1", "sha256:secret", &a)
	r.Done("r.io/robot:1", "sha256:robot", &robot)
	if left, _ := os.ReadDir(r.pulling); len(left) != 0 {
		t.Errorf("%d intents are left", len(left))
	}
	expect := func(what string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	r = open("") // the kubelet restarts
	expect("open", r.May("r.io/open:2", "sha256:open", have()), true)
	expect("no credential", r.May("r.io/secret:1", "sha256:secret", have()), false)
	expect("another's", r.May("r.io/secret:1", "sha256:secret", have(from("2", "h2"), robot)), false)
	expect("the same image from elsewhere", r.May("s.io/secret:1", "sha256:secret", have(from("1", "h1"))), false)
	expect("its own", r.May("r.io/secret:1", "sha256:secret", have(from("1", "h1"))), true)
	expect("the same login elsewhere", r.May("r.io/secret:1", "sha256:secret", have(from("3", "h1"))), true)
	expect("the same secret, rotated", r.May("r.io/secret:1", "sha256:secret", have(from("1", "h9"))), true)
	expect("which was written", r.May("r.io/secret:1", "sha256:secret", have(from("8", "h9"))), true)
	expect("account", r.May("r.io/robot:1", "sha256:robot", have(robot)), true)
	expect("preloaded", r.May("r.io/here:1", "sha256:here", have()), true)
	expect("never", open("NeverVerify").May("r.io/secret:1", "sha256:secret", have()), true)
	expect("always", open("AlwaysVerify").May("r.io/here:1", "sha256:here", have()), false)
	listed := open("NeverVerifyAllowlistedImages", "r.io/here", "r.io/all/*")
	expect("listed", listed.May("r.io/here:1", "sha256:here", have()), true)
	expect("below", listed.May("r.io/all/x:1", "sha256:x", have()), true)
	expect("not listed", listed.May("r.io/allx:1", "sha256:x", have()), false)
	if err := r.Begin("r.io/broken:1"); err != nil {
		t.Fatal(err)
	}
	expect("its pull was cut short by the kubelet's death", open("").May("r.io/broken:1", "sha256:b", have()), false)
	r.Failed("r.io/broken:1")
	expect("it never came", r.May("r.io/broken:1", "sha256:b", have()), true)
	if err := os.WriteFile(file(r.pulled, "sha256:secret"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("a broken record", r.May("r.io/secret:1", "sha256:secret", have(from("1", "h1"))), false)
	r.Keep([]string{"sha256:open"}, time.Now().Add(time.Hour))
	if left, _ := os.ReadDir(r.pulled); len(left) != 1 {
		t.Errorf("%d records are left", len(left))
	}
	for _, bad := range [][]string{{"Sometimes"}, {"AlwaysVerify", "r.io/x"}, {"NeverVerifyAllowlistedImages", "r.io/x:1"}, {"NeverVerifyAllowlistedImages", "r.io/*/x"}, {"NeverVerifyAllowlistedImages", "*"}} {
		if _, err := NewRecords(root, kubeletv1beta1.ImagePullCredentialsVerificationPolicy(bad[0]), bad[1:], log); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
