package controllermanager

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// denied is the label of pods that the webhook of the test refuses.
const denied = "deny.test.example"

// TestBadInput gives each controller what it cannot reconcile. It says why in an event, and in a condition where its kind has
// one, and goes on with its other keys: beside each, a good object of the same kind comes to its end.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := newCluster(t, driveFlags...)
	c.denier(t)
	refused := template()
	refused.Labels = map[string]string{"app": "web", denied: "true"}
	once := template()
	once.Spec.RestartPolicy = corev1.RestartPolicyNever
	onceRefused := *refused.DeepCopy()
	onceRefused.Spec.RestartPolicy = corev1.RestartPolicyNever
	selector := &metav1.LabelSelector{MatchLabels: appLabels}
	const no, quota = `admission webhook "deny.test.example" denied the request: not here`, "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
	for name, x := range map[string]struct {
		bad            func(s *space) error
		object, reason string // of the event that is to come
		says           string
		condition      func(s *space) string // what the object says of itself, "" = nothing
	}{
		"replica set, webhook": {func(s *space) error {
			_, err := s.admin.AppsV1().ReplicaSets(s.ns).Create(s.t.Context(), &appsv1.ReplicaSet{ObjectMeta: meta("bad"), Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(1)), Selector: selector, Template: refused}}, metav1.CreateOptions{})
			return err
		}, "bad", "FailedCreate", no, func(s *space) string {
			x, err := s.admin.AppsV1().ReplicaSets(s.ns).Get(s.t.Context(), "bad", metav1.GetOptions{})
			s.ok(err)
			for _, c := range x.Status.Conditions {
				return fmt.Sprint(c.Type, "=", c.Status, " ", c.Reason, ": ", c.Message)
			}
			return ""
		}},
		"deployment, quota": {func(s *space) error {
			s.none()
			_, err := s.admin.AppsV1().Deployments(s.ns).Create(s.t.Context(), &appsv1.Deployment{ObjectMeta: meta("bad"), Spec: appsv1.DeploymentSpec{Replicas: new(int32(1)), Selector: selector, Template: template()}}, metav1.CreateOptions{})
			return err
		}, "", "FailedCreate", quota, func(s *space) string {
			x, err := s.admin.AppsV1().Deployments(s.ns).Get(s.t.Context(), "bad", metav1.GetOptions{})
			s.ok(err)
			for _, c := range x.Status.Conditions {
				if c.Type == appsv1.DeploymentReplicaFailure {
					return fmt.Sprint(c.Type, "=", c.Status, " ", c.Reason, ": ", c.Message)
				}
			}
			return ""
		}},
		"replication controller, webhook": {func(s *space) error {
			_, err := s.admin.CoreV1().ReplicationControllers(s.ns).Create(s.t.Context(), &corev1.ReplicationController{ObjectMeta: meta("bad"), Spec: corev1.ReplicationControllerSpec{Replicas: new(int32(1)), Selector: appLabels, Template: &refused}}, metav1.CreateOptions{})
			return err
		}, "bad", "FailedCreate", no, nil},
		"stateful set, quota": {func(s *space) error {
			s.none()
			_, err := s.admin.AppsV1().StatefulSets(s.ns).Create(s.t.Context(), &appsv1.StatefulSet{ObjectMeta: meta("bad"), Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template()}}, metav1.CreateOptions{})
			return err
		}, "bad", "FailedCreate", "create Pod bad-0 in StatefulSet bad failed error: pods \"bad-0\" is forbidden: " + quota, nil},
		"daemon set, webhook": {func(s *space) error {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.ns, Labels: map[string]string{"only": s.ns}}}
			if _, err := s.admin.CoreV1().Nodes().Create(s.t.Context(), node, metav1.CreateOptions{}); err != nil {
				return err
			}
			pod := *refused.DeepCopy()
			pod.Spec.NodeSelector = node.Labels
			pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
			_, err := s.admin.AppsV1().DaemonSets(s.ns).Create(s.t.Context(), &appsv1.DaemonSet{ObjectMeta: meta("bad"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: pod}}, metav1.CreateOptions{})
			return err
		}, "bad", "FailedCreate", "Error creating: " + no, nil},
		"job, webhook": {func(s *space) error {
			_, err := s.admin.BatchV1().Jobs(s.ns).Create(s.t.Context(), &batchv1.Job{ObjectMeta: meta("bad"), Spec: batchv1.JobSpec{Template: onceRefused}}, metav1.CreateOptions{})
			return err
		}, "bad", "FailedCreate", "Error creating: " + no, nil},
		"autoscaler, nothing to scale": {func(s *space) error {
			return s.scaler("batch/v1", "CronJob", "none")
		}, "bad", "FailedGetScale", "the server could not find the requested resource", func(s *space) string { return s.scalerSays() }},
		"autoscaler, nobody": {func(s *space) error {
			return s.scaler("apps/v1", "Deployment", "nobody")
		}, "bad", "FailedGetScale", `deployments.apps "nobody" not found`, func(s *space) string { return s.scalerSays() }},
		"autoscaler, no such kind": {func(s *space) error {
			return s.scaler("apps/v1", "Crowd", "nobody")
		}, "bad", "FailedGetScale", `no matches for kind "Crowd" in`, func(s *space) string { return s.scalerSays() }},
		"budget, an owner without scale": {func(s *space) error {
			_, err := s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Create(s.t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: meta("bad"), Spec: policyv1.PodDisruptionBudgetSpec{
				MaxUnavailable: new(intstr.FromInt32(1)), Selector: selector,
			}}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			job := &batchv1.Job{ObjectMeta: meta("owner"), Spec: batchv1.JobSpec{Template: once}}
			job.Spec.Template.Labels = appLabels
			_, err = s.admin.BatchV1().Jobs(s.ns).Create(s.t.Context(), job, metav1.CreateOptions{})
			return err
		}, "bad", "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: jobs.batch does not implement the scale subresource", func(s *space) string {
			x, err := s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Get(s.t.Context(), "bad", metav1.GetOptions{})
			s.ok(err)
			for _, c := range x.Status.Conditions {
				if c.Reason == policyv1.SyncFailedReason {
					return fmt.Sprint(c.Type, "=", c.Status, " ", c.Reason, ": ", c.Message)
				}
			}
			return ""
		}},
		"claim, no such class": {func(s *space) error {
			_, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Create(s.t.Context(), s.claim("bad"), metav1.CreateOptions{})
			return err
		}, "bad", "ProvisioningFailed", "storageclass.storage.k8s.io", nil},
		"owner of another namespace": {func(s *space) error {
			other := s.owner("default")
			m := &corev1.ConfigMap{ObjectMeta: meta("bad")}
			m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: other.Name, UID: other.UID}}
			if _, err := s.admin.CoreV1().ConfigMaps(s.ns).Create(s.t.Context(), m, metav1.CreateOptions{}); err != nil {
				return err
			}
			s.wait("what nobody here owns to go", func() error {
				_, err := s.admin.CoreV1().ConfigMaps(s.ns).Get(s.t.Context(), "bad", metav1.GetOptions{})
				return gone(err)
			})
			_, err := s.admin.CoreV1().ConfigMaps("default").Get(s.t.Context(), other.Name, metav1.GetOptions{})
			return err
		}, "bad", "OwnerRefInvalidNamespace", "does not exist in namespace", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := c.space(t)
			s.wait("the namespace's account", func() error { // or that it lacks would be told first
				_, err := s.admin.CoreV1().ServiceAccounts(s.ns).Get(t.Context(), "default", metav1.GetOptions{})
				return err
			})
			s.ok(x.bad(s))
			s.told(x.object, x.reason, x.says)
			if x.condition != nil {
				s.wait("a condition that says so", func() error {
					if says := x.condition(s); !strings.Contains(says, x.says[strings.LastIndex(x.says, ": ")+1:]) {
						return fmt.Errorf("it says %q", says)
					}
					return nil
				})
			}
			good := c.space(t)
			good.deployment(1)
			good.play(corev1.PodRunning, 1)
		})
	}
	t.Run("what no API takes", func(t *testing.T) {
		t.Parallel()
		s := c.space(t)
		for _, spec := range []batchv1.CronJobSpec{{Schedule: "every day"}, {Schedule: "* * * * *", TimeZone: new("Mars/Olympus")}, {Schedule: "TZ=UTC * * * * *"}} {
			spec.JobTemplate.Spec.Template = once
			if _, err := s.admin.BatchV1().CronJobs(s.ns).Create(t.Context(), &batchv1.CronJob{ObjectMeta: meta("bad"), Spec: spec}, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
				t.Errorf("%v was taken: %v", spec, err)
			}
		}
		if _, err := s.admin.AppsV1().Deployments(s.ns).Create(t.Context(), &appsv1.Deployment{ObjectMeta: meta("bad"), Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{}, Template: template()}}, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a selector of everything was taken: %v", err)
		}
	})
	t.Run("owners that lie", func(t *testing.T) {
		t.Parallel()
		lies(c.space(t))
	})
}

// lies makes objects whose owners are not what they say.
func lies(s *space) {
	own := s.owner(s.ns)
	maps := s.admin.CoreV1().ConfigMaps(s.ns)
	ref := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: own.Name, UID: own.UID}
	made := func(name string, change func(*metav1.OwnerReference)) {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
		r := ref
		change(&r)
		m.OwnerReferences = []metav1.OwnerReference{r}
		_, err := maps.Create(s.t.Context(), m, metav1.CreateOptions{})
		s.ok(err)
	}
	made("honest", func(*metav1.OwnerReference) {})
	made("wrong-uid", func(r *metav1.OwnerReference) { r.UID = "0" })
	made("wrong-name", func(r *metav1.OwnerReference) { r.Name = "nobody" })
	made("wrong-kind", func(r *metav1.OwnerReference) { r.Kind, r.Name = "Secret", "nobody" })
	made("unknown-kind", func(r *metav1.OwnerReference) { r.APIVersion, r.Kind, r.UID = "nobody.test/v1", "Crowd", "1" })
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: s.ns + "-owned", OwnerReferences: []metav1.OwnerReference{ref}}}
	_, err := s.admin.RbacV1().ClusterRoles().Create(s.t.Context(), role, metav1.CreateOptions{})
	s.ok(err)
	for _, name := range []string{"wrong-uid", "wrong-name", "wrong-kind"} {
		s.wait(name+" to go", func() error {
			_, err := maps.Get(s.t.Context(), name, metav1.GetOptions{})
			return gone(err)
		})
	}
	s.ok(maps.Delete(s.t.Context(), own.Name, metav1.DeleteOptions{}))
	s.wait("the honest one to go with its owner", func() error {
		_, err := maps.Get(s.t.Context(), "honest", metav1.GetOptions{})
		return gone(err)
	})
	if _, err := maps.Get(s.t.Context(), "unknown-kind", metav1.GetOptions{}); err != nil {
		s.t.Errorf("one whose owner is of a kind that nobody serves went: %v", err)
	}
	if _, err := s.admin.RbacV1().ClusterRoles().Get(s.t.Context(), role.Name, metav1.GetOptions{}); err != nil {
		s.t.Errorf("an object of no namespace went with an owner in one: %v", err)
	}
}

// owner makes an object that others may name as their owner.
func (s *space) owner(ns string) *corev1.ConfigMap {
	m, err := s.admin.CoreV1().ConfigMaps(ns).Create(s.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "owner-"}}, metav1.CreateOptions{})
	s.ok(err)
	return m
}

// none allows no pods.
func (s *space) none() {
	_, err := s.admin.CoreV1().ResourceQuotas(s.ns).Create(s.t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("0")}}}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the quota to be counted", func() error {
		q, err := s.admin.CoreV1().ResourceQuotas(s.ns).Get(s.t.Context(), "none", metav1.GetOptions{})
		if err == nil && len(q.Status.Hard) == 0 {
			return fmt.Errorf("%v", q.Status)
		}
		return err
	})
}

func (s *space) scaler(apiVersion, kind, name string) error {
	_, err := s.admin.AutoscalingV2().HorizontalPodAutoscalers(s.ns).Create(s.t.Context(), &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: apiVersion, Kind: kind, Name: name}, MaxReplicas: 2,
	}}, metav1.CreateOptions{})
	return err
}

func (s *space) scalerSays() string {
	h, err := s.admin.AutoscalingV2().HorizontalPodAutoscalers(s.ns).Get(s.t.Context(), "bad", metav1.GetOptions{})
	s.ok(err)
	for _, c := range h.Status.Conditions {
		if c.Type == autoscalingv2.AbleToScale && c.Status == corev1.ConditionFalse && c.Reason == "FailedGetScale" {
			return c.Message
		}
	}
	return ""
}

// told waits for a warning about an object, "" = any, that has a reason and says something.
func (s *space) told(object, reason, says string) {
	s.t.Helper()
	s.wait("a warning "+reason, func() error {
		list, err := s.admin.CoreV1().Events(s.ns).List(s.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var others []string
		for _, e := range list.Items {
			if e.Type == corev1.EventTypeWarning && e.Reason == reason && (object == "" || e.InvolvedObject.Name == object) && strings.Contains(e.Message, says) {
				return nil
			}
			others = append(others, e.InvolvedObject.Name+" "+e.Reason+": "+e.Message)
		}
		return fmt.Errorf("there is none that says %q, but %q", says, others)
	})
}

// denier serves a webhook that refuses pods with the label, until the test ends.
func (c *cluster) denier(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			http.Error(w, "not a review", http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: &metav1.Status{Message: "not here"}}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review) // who asked may have gone
	}))
	t.Cleanup(server.Close)
	url, none, fail := server.URL, admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Fail
	_, err := c.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: denied}, Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: denied, AdmissionReviewVersions: []string{"v1"}, SideEffects: &none, FailurePolicy: &fail, ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{denied: "true"}},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})},
			Rules:        []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create}, Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}
