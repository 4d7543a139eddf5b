package plugins

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// made answers a plugin as a configuration makes it; "" is none.
func made(t *testing.T, f func(Configuration) (admission.Plugin, error), conf string) admission.Plugin {
	t.Helper()
	p, err := f(Configuration{"EventRateLimit": []byte(conf), "ImagePolicyWebhook": []byte(conf), "PodNodeSelector": []byte(conf),
		"PodTolerationRestriction": []byte(conf), "ResourceQuota": []byte(conf), "PodSecurity": []byte(conf)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func inNamespace(notes map[string]string) world {
	return world{objects: map[schema.GroupResource][]kind.Object{namespaces: {&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: notes}}}}}
}

func TestConfigurationFaults(t *testing.T) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n"
	for _, c := range []struct{ name, text, want string }{
		{"no kind", "plugins: []", `give an AdmissionConfiguration of apiserver.config.k8s.io/v1`},
		{"an unknown field", head + "plugin: []", `unknown field "plugin"`},
		{"an unknown plugin", head + "plugins: [{name: Nothing}]", `there is no plugin "Nothing"`},
		{"a plugin twice", head + "plugins: [{name: PodSecurity}, {name: PodSecurity}]", `stands there twice`},
		{"no such file", head + "plugins: [{name: PodSecurity, path: none.yaml}]", "no such file"},
		{"an unknown field of a plugin", head + "plugins: [{name: EventRateLimit, configuration: {apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limit: []}}]", `unknown field "limit"`},
		{"a wrong kind", head + "plugins: [{name: EventRateLimit, configuration: {apiVersion: v1, kind: Configuration}}]", "give a Configuration of eventratelimit.admission.k8s.io/v1alpha1"},
		{"no limits", head + "plugins: [{name: EventRateLimit, configuration: {apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration}}]", "needs a configuration"},
		{"a level that is not", head + "plugins: [{name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {enforce: lax}}}]", "lax"},
		{"a kubeconfig that is not", head + "plugins: [{name: ValidatingAdmissionWebhook, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: /none}}]", "kubeConfigFile"},
		{"a quota of nothing", head + "plugins: [{name: ResourceQuota, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration, limitedResources: [{}]}}]", "limitedResources[0].resource: Required value"},
	} {
		file := filepath.Join(t.TempDir(), "admission.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		said, err := ReadConfiguration(file)
		if err == nil {
			_, err = New(Config{Enable: []string{"EventRateLimit"}, Configuration: withLimit(said), Authz: signers(t, nil)})
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: answered %v, want one line with %q", c.name, err, c.want)
		}
	}
}

// withLimit gives EventRateLimit something if nothing is said of it.
func withLimit(c Configuration) Configuration {
	if _, ok := c["EventRateLimit"]; !ok {
		c["EventRateLimit"] = []byte(`{"apiVersion":"eventratelimit.admission.k8s.io/v1alpha1","kind":"Configuration","limits":[{"type":"Server","qps":1,"burst":1}]}`)
	}
	return c
}

func TestEventRateLimit(t *testing.T) {
	p := made(t, EventRateLimit, `{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: SourceAndObject, qps: 1, burst: 2}, {type: Namespace, qps: 1, burst: 4}]}`)
	event := func(component string) *corev1.Event {
		return &corev1.Event{Source: corev1.EventSource{Component: component}, InvolvedObject: corev1.ObjectReference{Name: "o"}}
	}
	says(t, "the first", create(p, world{}, "events", event("a")), "")
	says(t, "the second", create(p, world{}, "events", event("a")), "")
	says(t, "the third of a source", create(p, world{}, "events", event("a")), "limit reached on type SourceAndObject for key ao")
	says(t, "another source", create(p, world{}, "events", event("b")), "")
	says(t, "the fifth of a namespace", create(p, world{}, "events", event("b")), "limit reached on type Namespace for key a")
	says(t, "no event", create(p, world{}, "pods", &corev1.Pod{}), "")
}

func TestPodTolerationRestriction(t *testing.T) {
	p := made(t, PodTolerationRestriction, `{apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1, kind: Configuration, default: [{key: d, operator: Exists}], whitelist: [{key: d, operator: Exists}, {key: w, operator: Exists}]}`)
	pod := func(keys ...string) *corev1.Pod {
		o := &corev1.Pod{}
		for _, k := range keys {
			o.Spec.Tolerations = append(o.Spec.Tolerations, corev1.Toleration{Key: k, Operator: corev1.TolerationOpExists})
		}
		return o
	}
	const no = "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"
	one := pod("w")
	says(t, "the cluster's", create(p, inNamespace(nil), "pods", one), "")
	if len(one.Spec.Tolerations) != 2 || one.Spec.Tolerations[0].Key != "d" {
		t.Errorf("a pod got the tolerations %v", one.Spec.Tolerations)
	}
	says(t, "what the cluster does not allow", create(p, inNamespace(nil), "pods", pod("x")), no)
	own := map[string]string{givenTolerations: `[{"key":"n","operator":"Exists"}]`, allowedTolerations: `[{"key":"n","operator":"Exists"}]`}
	says(t, "the namespace's", create(p, inNamespace(own), "pods", pod()), "")
	says(t, "what the namespace does not allow", create(p, inNamespace(own), "pods", pod("w")), no)
	says(t, "a namespace that allows all", create(p, inNamespace(map[string]string{allowedTolerations: ""}), "pods", pod("x")), "")
	burstable := pod()
	burstable.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: amounts("cpu", "1")}}}
	says(t, "one that asks for cpu", create(p, inNamespace(map[string]string{allowedTolerations: ""}), "pods", burstable), "")
	if n := len(burstable.Spec.Tolerations); n != 2 || burstable.Spec.Tolerations[1].Key != corev1.TaintNodeMemoryPressure {
		t.Errorf("a burstable pod got the tolerations %v", burstable.Spec.Tolerations)
	}
}

func TestPodNodeSelectorConfigured(t *testing.T) {
	p := made(t, PodNodeSelector, "podNodeSelectorPluginConfig:\n  clusterDefaultNodeSelector: env=dev\n  a: env=dev,zone=z\n")
	pod := &corev1.Pod{}
	says(t, "the cluster's", create(p, inNamespace(nil), "pods", pod), "")
	if pod.Spec.NodeSelector["env"] != "dev" {
		t.Errorf("a pod got the selector %v", pod.Spec.NodeSelector)
	}
	says(t, "what is not allowed", create(p, inNamespace(nil), "pods", &corev1.Pod{Spec: corev1.PodSpec{NodeSelector: map[string]string{"zone": "y"}}}),
		"pod node label selector labels conflict with its namespace whitelist")
	says(t, "the namespace's", create(p, inNamespace(map[string]string{selectorNote: "zone=z"}), "pods", &corev1.Pod{}), "")
}

func TestLimitedResources(t *testing.T) {
	const conf = `{apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration, limitedResources: [
		{resource: pods, matchContains: [requests.cpu], matchScopes: [{scopeName: PriorityClass, operator: In, values: [gold]}]}]}`
	pod := func(class string, cpu bool) *corev1.Pod {
		o := &corev1.Pod{Spec: corev1.PodSpec{PriorityClassName: class, Containers: []corev1.Container{{Name: "c"}}}}
		if cpu {
			o.Spec.Containers[0].Resources.Requests = amounts("cpu", "1")
		}
		return o
	}
	for _, c := range []struct {
		name   string
		quotas []*corev1.ResourceQuota
		pod    *corev1.Pod
		want   string
	}{
		{"what is not limited", nil, pod("", false), ""},
		{"cpu without quota", nil, pod("", true), "insufficient quota to consume: requests.cpu"},
		{"cpu with quota", []*corev1.ResourceQuota{quota("cpu", amounts("requests.cpu", "4"), amounts("requests.cpu", "0"))}, pod("", true), ""},
		{"gold without quota", []*corev1.ResourceQuota{quota("other", amounts("pods", "4"), amounts("pods", "0"))}, pod("gold", false), "insufficient quota to match these scopes: [{PriorityClass In [gold]}]"},
		{"gold with quota", []*corev1.ResourceQuota{forClass("gold", "gold", amounts("pods", "4"))}, pod("gold", false), ""},
		{"gold with a quota of silver", []*corev1.ResourceQuota{forClass("silver", "silver", amounts("pods", "4"))}, pod("gold", false), "insufficient quota to match these scopes: [{PriorityClass In [gold]}]"},
	} {
		says(t, c.name, books(c.quotas...).write(made(t, ResourceQuota, conf), podDef, c.pod, nil, false), c.want)
	}
}

func forClass(name, class string, hard corev1.ResourceList) *corev1.ResourceQuota {
	q := quota(name, hard, amounts("pods", "0"))
	q.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
		{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{class}},
	}}
	return q
}

func TestImagePolicyWebhook(t *testing.T) {
	asked := 0
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		b := make([]byte, 4096)
		n, _ := r.Body.Read(b)
		answer := `"allowed":true`
		switch text := string(b[:n]); {
		case strings.Contains(text, "broken"):
			http.Error(w, "no", http.StatusTeapot)
			return
		case strings.Contains(text, "bad") && strings.Contains(text, `"a.image-policy.k8s.io/b":"c"`):
			answer = `"allowed":false,"reason":"it is bad"`
		case strings.Contains(text, "bad"):
			answer = `"allowed":false`
		}
		_, _ = w.Write([]byte(`{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","status":{` + answer + `}}`))
	}))
	defer service.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kc")
	if err := os.WriteFile(kubeconfig, []byte(`{"clusters":[{"name":"c","cluster":{"server":"`+service.URL+`"}}],"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := made(t, ImagePolicyWebhook, `{imagePolicy: {kubeConfigFile: `+kubeconfig+`, retryBackoff: -1}}`)
	pod := func(image string, notes map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: notes}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: image}}}}
	}
	says(t, "a good image", create(p, world{}, "pods", pod("good", nil)), "")
	says(t, "the same again", create(p, world{}, "pods", pod("good", nil)), "")
	if asked != 1 {
		t.Errorf("the service was asked %d times, not once", asked)
	}
	says(t, "a bad image", create(p, world{}, "pods", pod("bad", nil)), "one or more images rejected by webhook backend")
	says(t, "a bad image with a reason", create(p, world{}, "pods", pod("bad", map[string]string{"a.image-policy.k8s.io/b": "c"})), "image policy webhook backend denied one or more images: it is bad")
	if err := create(p, world{}, "pods", pod("broken", nil)); err == nil {
		t.Error("a service that fails let a pod through")
	}
	open := made(t, ImagePolicyWebhook, `{imagePolicy: {kubeConfigFile: `+kubeconfig+`, retryBackoff: -1, defaultAllow: true}}`)
	says(t, "a service that fails open", create(open, world{}, "pods", pod("broken", nil)), "")
}
