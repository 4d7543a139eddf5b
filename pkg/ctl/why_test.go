package ctl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
)

const said = `{"pod":"default/p","state":"unschedulable","since":"2026-01-01T00:00:00Z","last":{"when":"2026-01-01T00:01:00Z","attempts":3,"message":"0/5 nodes are available."},
"now":{"message":"0/5 nodes are available.","nodes":[
{"name":"a","fits":false,"refusals":[{"plugin":"NodeResourcesFit","reasons":["Insufficient cpu"],"advice":"ask for less","evictable":true}]},
{"name":"b","fits":false,"refusals":[{"plugin":"NodeResourcesFit","reasons":["Insufficient cpu"],"advice":"ask for less","evictable":true}]},
{"name":"c","fits":false,"refusals":[{"plugin":"NodeResourcesFit","reasons":["Insufficient cpu"],"advice":"ask for less","evictable":true}]},
{"name":"d","fits":false,"refusals":[{"plugin":"NodeResourcesFit","reasons":["Insufficient cpu"],"advice":"ask for less","evictable":true}]},
{"name":"e","fits":false,"refusals":[{"plugin":"TaintToleration","reasons":["node(s) had untolerated taint(s)"]},{"plugin":"NodeAffinity","reasons":["evil \u001b[31m"]}]}]}}`

const wanted = `Pod default/p has waited 2m for a node; it is unschedulable.
Last decision, 60s ago, after 3 attempts: 0/5 nodes are available.

NODES             FIT   PLUGIN             REASON                             WHAT WOULD HELP
4: a, b, c, ...   no    NodeResourcesFit   Insufficient cpu                   ask for less (evicting pods may help)
e                 no    TaintToleration    node(s) had untolerated taint(s)
                        NodeAffinity       evil ` + "\uFFFD" + `[31m
`

// asked answers a command whose scheduler is a server of this test.
func asked(t *testing.T, pod *corev1.Pod, serve http.HandlerFunc) (*why, *bytes.Buffer) {
	t.Helper()
	server := httptest.NewTLSServer(serve)
	t.Cleanup(server.Close)
	sum := sha256.Sum256(server.Certificate().Raw)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-scheduler", Annotations: map[string]string{
		addressAnnotation: strings.TrimPrefix(server.URL, "https://"), fingerprintAnnotation: hex.EncodeToString(sum[:])}}}
	out := &bytes.Buffer{}
	return &why{
		streams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: out, ErrOut: out}, lease: "kube-scheduler", namespace: "default",
		client: fake.NewClientset(lease, pod), config: &rest.Config{BearerToken: "secret"},
		now: func() time.Time { return time.Date(2026, 1, 1, 0, 2, 0, 0, time.UTC) },
	}, out
}

func waitingPod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "no room"}}
	return p
}

func TestWhyAPodWaits(t *testing.T) {
	w, out := asked(t, waitingPod(), func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" || r.URL.Path != "/explain/namespaces/default/pods/p" {
			t.Errorf("asked %s as %q", r.URL, r.Header.Get("Authorization"))
		}
		_, _ = rw.Write([]byte(said))
	})
	if err := w.run(context.Background(), []string{"pod", "p"}); err != nil || out.String() != wanted {
		t.Errorf("%v, got\n%swant\n%s", err, out, wanted)
	}
}

func TestTheSchedulerIsKnownByItsCertificate(t *testing.T) {
	w, out := asked(t, waitingPod(), func(http.ResponseWriter, *http.Request) { t.Error("an impostor was told the token") })
	lease, err := w.client.CoordinationV1().Leases("kube-system").Get(context.Background(), "kube-scheduler", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	lease.Annotations[fingerprintAnnotation] = strings.Repeat("0", 64)
	if _, err := w.client.CoordinationV1().Leases("kube-system").Update(context.Background(), lease, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// What the pod's condition says is still told.
	if err := w.run(context.Background(), []string{"pod/p"}); err != nil || !strings.Contains(out.String(), "Unschedulable: no room") ||
		!strings.Contains(out.String(), "is not the one the scheduler wrote") {
		t.Errorf("%v %s", err, out)
	}
}

func TestWhatIfTakesATemplate(t *testing.T) {
	w, out := asked(t, waitingPod(), func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/explain/what-if" {
			t.Errorf("asked %s %s", r.Method, r.URL)
		}
		_, _ = rw.Write([]byte(`{"pod":"default/web-x","state":"what if","now":{"node":"a","nodes":[{"name":"a","fits":true,"score":7}]}}`))
	})
	w.whatIf, w.file = true, filepath.Join(t.TempDir(), "d.yaml")
	if err := os.WriteFile(w.file, []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: c, image: x}]}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.run(context.Background(), nil); err != nil || !strings.Contains(out.String(), "Now it would go to a.") {
		t.Errorf("%v %s", err, out)
	}
	if _, err := podName([]string{"deployment", "x"}); err == nil {
		t.Error("a Deployment was taken for a pod")
	}
}
