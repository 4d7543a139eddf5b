package controllermanager

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// adapter serves custom and external metrics behind the apiserver, as programs beside a time series database do.
type adapter struct {
	mu    sync.Mutex
	asked []string
	down  bool
}

func (a *adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	version, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/apis/"), "/namespaces/")
	w.Header().Set("Content-Type", "application/json")
	if rest == "" { // availability and discovery
		fmt.Fprintf(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":%q,"resources":[]}`, version)
		return
	}
	a.asked = append(a.asked, version+" "+r.Header.Get("X-Remote-User")+" "+r.URL.Query().Encode())
	ns, metric, _ := strings.Cut(rest, "/")
	now := time.Now().UTC().Format(time.RFC3339)
	switch metric {
	case "services/shop/orders":
		fmt.Fprintf(w, `{"kind":"MetricValueList","items":[{"describedObject":{"kind":"Service","name":"shop","namespace":%q},"timestamp":%q,"value":"30"}]}`, ns, now)
	case "pods/*/requests":
		fmt.Fprintf(w, `{"kind":"MetricValueList","items":[{"describedObject":{"kind":"Pod","name":"pods","namespace":%q},"timestamp":%q,"window":30,"value":"20"}]}`, ns, now)
	case "queue":
		fmt.Fprintf(w, `{"kind":"ExternalMetricValueList","items":[{"metricName":"queue","timestamp":%q,"value":"10"},{"metricName":"queue","timestamp":%q,"value":"10500m"}]}`, now, now)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"reason":"NotFound","message":"the adapter knows no %s"}`, metric)
	}
}

// saw answers whether anybody asked like this.
func (a *adapter) saw(begins, has string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.asked {
		if strings.HasPrefix(x, begins) && strings.Contains(x, has) {
			return true
		}
	}
	return false
}

// register puts a group's version of metrics behind the apiserver.
func (s *space) register(group, version, port string) {
	s.t.Helper()
	s.ok(s.admin.Discovery().RESTClient().Post().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices").SetHeader("Content-Type", "application/json").Body(fmt.Appendf(nil,
		`{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"%[2]s.%[1]s"},"spec":{"group":%[1]q,"version":%[2]q,"groupPriorityMinimum":100,"versionPriority":100,"insecureSkipTLSVerify":true,"service":{"namespace":%[3]q,"name":"adapter","port":%[4]s}}}`,
		group, version, s.ns, port)).Do(s.t.Context()).Error())
}

// scaled makes a set of one ready pod, and what scales it by a metric.
func (s *space) scaled(name string, m autoscalingv2.MetricSpec) {
	s.t.Helper()
	labels := map[string]string{"app": name}
	pod := template()
	pod.Labels = labels
	_, err := s.admin.AppsV1().ReplicaSets(s.ns).Create(s.t.Context(), &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: pod}}, metav1.CreateOptions{})
	s.ok(err)
	p, err := s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: pod.Spec}, metav1.CreateOptions{})
	s.ok(err)
	p.Status.Phase, p.Status.StartTime = corev1.PodRunning, new(metav1.Now())
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	_, err = s.admin.CoreV1().Pods(s.ns).UpdateStatus(s.t.Context(), p, metav1.UpdateOptions{})
	s.ok(err)
	_, err = s.admin.AutoscalingV2().HorizontalPodAutoscalers(s.ns).Create(s.t.Context(), &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name}, MaxReplicas: 9, Metrics: []autoscalingv2.MetricSpec{m},
	}}, metav1.CreateOptions{})
	s.ok(err)
}

// inactive waits for the reason and the words for which a scaler does nothing, and for a warning that says the same.
func (s *space) inactive(name, reason, message string) {
	s.t.Helper()
	s.wait(name+" says why", func() error {
		h, err := s.admin.AutoscalingV2().HorizontalPodAutoscalers(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range h.Status.Conditions {
			if c.Type == autoscalingv2.ScalingActive && c.Status == corev1.ConditionFalse && c.Reason == reason && c.Message == "the HPA was unable to compute the replica count: "+message {
				return nil
			}
		}
		said, _ := json.Marshal(h.Status.Conditions)
		return fmt.Errorf("%s", said)
	})
	s.told(name, reason, message)
}

// TestServedMetrics scales by metrics of an object, of pods and of nothing in the cluster. They are served by another program
// behind the apiserver, which is missing at first, speaks the old version alone, is silent for a while, and learns the new version.
func TestServedMetrics(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--controllers=horizontal-pod-autoscaler-controller", "--horizontal-pod-autoscaler-sync-period=300ms", "--horizontal-pod-autoscaler-downscale-stabilization=0s")
	s := c.space(t)
	_, err := s.admin.CoreV1().ServiceAccounts(s.ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	s.ok(err)
	of := func(name string) autoscalingv2.MetricIdentifier {
		return autoscalingv2.MetricIdentifier{Name: name, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"verb": "GET"}}}
	}
	s.scaled("object", autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
		DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "shop"}, Metric: of("orders"),
		Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("10"))},
	}})
	s.scaled("pods", autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
		Metric: of("requests"), Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("5"))},
	}})
	s.scaled("external", autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "queue"}, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("7"))},
	}})
	object := "unable to get metric orders: Service on " + s.ns + " shop/"
	external := "unable to get external metric " + s.ns + "/queue/nil: unable to fetch metrics from external metrics API: "
	const custom = "unable to fetch metrics from custom metrics API: "

	none := custom + "no custom metrics API (custom.metrics.k8s.io) registered"
	s.inactive("object", "FailedGetObjectMetric", object+none)
	s.inactive("pods", "FailedGetPodsMetric", "unable to get metric requests: "+none)
	s.inactive("external", "FailedGetExternalMetric", external+"the server could not find the requested resource (get queue.external.metrics.k8s.io)")

	a := &adapter{}
	server := httptest.NewTLSServer(a)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	s.ok(err)
	_, err = s.admin.CoreV1().Services(s.ns).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "adapter"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}}, metav1.CreateOptions{})
	s.ok(err)
	s.register("custom.metrics.k8s.io", "v1beta1", u.Port())
	s.register("external.metrics.k8s.io", "v1beta1", u.Port())
	replicas := func(name string, want int32) {
		t.Helper()
		s.wait(fmt.Sprint(name, " at ", want), func() error {
			set, err := s.admin.AppsV1().ReplicaSets(s.ns).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil || *set.Spec.Replicas != want {
				return fmt.Errorf("%d replicas, %w", *set.Spec.Replicas, err)
			}
			h, err := s.admin.AutoscalingV2().HorizontalPodAutoscalers(s.ns).Get(t.Context(), name, metav1.GetOptions{})
			if err == nil && (len(h.Status.CurrentMetrics) != 1 || h.Status.DesiredReplicas != want) {
				return fmt.Errorf("%v", h.Status)
			}
			return err
		})
	}
	replicas("object", 3)   // 30 of 10, by the one pod that is ready
	replicas("pods", 4)     // 20 of 5
	replicas("external", 3) // 20.5 of 7 each
	const account = " system:serviceaccount:kube-system:horizontal-pod-autoscaler "
	for _, want := range []string{"metricLabelSelector=verb%3DGET", "labelSelector=app%3Dpods&metricLabelSelector=verb%3DGET"} {
		if !a.saw("custom.metrics.k8s.io/v1beta1"+account, want) {
			t.Errorf("nobody asked for %s: %q", want, a.asked)
		}
	}
	if !a.saw("external.metrics.k8s.io/v1beta1"+account, "") {
		t.Errorf("nobody asked for the external metric: %q", a.asked)
	}

	a.mu.Lock()
	a.down = true
	a.mu.Unlock()
	const away = "the server is currently unable to handle the request (get "
	s.inactive("object", "FailedGetObjectMetric", object+custom+away+"services.custom.metrics.k8s.io shop)")
	s.inactive("pods", "FailedGetPodsMetric", "unable to get metric requests: "+custom+away+"pods.custom.metrics.k8s.io *)")
	s.inactive("external", "FailedGetExternalMetric", external+away+"queue.external.metrics.k8s.io)")
	a.mu.Lock()
	a.down = false
	a.mu.Unlock()
	s.register("custom.metrics.k8s.io", "v1beta2", u.Port())
	s.wait("the new version to be asked", func() error {
		if !a.saw("custom.metrics.k8s.io/v1beta2"+account, "metricLabelSelector=verb%3DGET") {
			return fmt.Errorf("nobody asks for it")
		}
		return nil
	})
	s.scaled("unknown", autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "moons"}, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("5"))},
	}})
	s.inactive("unknown", "FailedGetPodsMetric", "unable to get metric moons: "+custom+"the adapter knows no pods/*/moons")
}
