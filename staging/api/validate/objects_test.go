package validate_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"reflect"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// checker answers our errors to an object sent; was is the object stored, nil on create.
type checker func(t *testing.T, now, was []byte) field.ErrorList

// checkers are the kinds of testdata/objects-1.36.jsonl.gz.
var checkers = map[string]checker{
	"Service":                 of(true, defaults.Service, placeService, validate.Service, validate.ServiceUpdate),
	"Node":                    of(false, nil, nil, validate.Node, validate.NodeUpdate),
	"Namespace":               of(false, nameNamespace, nil, validate.Namespace, validate.NamespaceUpdate),
	"ServiceAccount":          of(true, nil, nil, validate.ServiceAccount, validate.ServiceAccountUpdate),
	"Lease":                   of[coordinationv1.Lease](true, nil, nil, validate.Lease, validate.LeaseUpdate),
	"Role":                    of(true, nil, nil, validate.Role, validate.RoleUpdate),
	"ClusterRole":             of(false, nil, nil, validate.ClusterRole, validate.ClusterRoleUpdate),
	"RoleBinding":             of[rbacv1.RoleBinding](true, defaults.RoleBinding, nil, validate.RoleBinding, validate.RoleBindingUpdate),
	"ClusterRoleBinding":      of[rbacv1.ClusterRoleBinding](false, defaults.ClusterRoleBinding, nil, validate.ClusterRoleBinding, validate.ClusterRoleBindingUpdate),
	"Event":                   of(true, nil, nil, validate.Event, validate.EventUpdate),
	"Endpoints":               of[corev1.Endpoints](true, defaults.Endpoints, nil, validate.Endpoints, validate.EndpointsUpdate),
	"NetworkPolicy":           of[networkingv1.NetworkPolicy](true, defaults.NetworkPolicy, nil, validate.NetworkPolicy, validate.NetworkPolicyUpdate),
	"Ingress":                 of[networkingv1.Ingress](true, nil, nil, validate.Ingress, validate.IngressUpdate),
	"PodDisruptionBudget":     of[policyv1.PodDisruptionBudget](true, nil, nil, validate.PodDisruptionBudget, validate.PodDisruptionBudgetUpdate),
	"StorageClass":            of[storagev1.StorageClass](false, defaults.StorageClass, nil, validate.StorageClass, validate.StorageClassUpdate),
	"PriorityClass":           of[schedulingv1.PriorityClass](false, defaults.PriorityClass, nil, validate.PriorityClass, validate.PriorityClassUpdate),
	"HorizontalPodAutoscaler": of[autoscalingv2.HorizontalPodAutoscaler](true, defaults.HorizontalPodAutoscaler, nil, validate.HorizontalPodAutoscaler, validate.HorizontalPodAutoscalerUpdate),
	"LimitRange":              of(true, defaults.LimitRange, nameLimits, validate.LimitRange, validate.LimitRangeUpdate),
	"ResourceQuota":           of(true, nil, nil, validate.ResourceQuota, validate.ResourceQuotaUpdate),
	"EndpointSlice":           of[discoveryv1.EndpointSlice](true, defaults.EndpointSlice, nil, validate.EndpointSlice, validate.EndpointSliceUpdate),
}

// of is a checker of one kind. place does what the apiserver's row has done to an object before it is checked.
func of[T any, P interface {
	*T
	metav1.Object
}](namespaced bool, fill func(P), place func(obj, old P), create func(P) field.ErrorList, update func(P, P) field.ErrorList) checker {
	return func(t *testing.T, now, was []byte) field.ErrorList {
		t.Helper()
		read := func(raw []byte, old P) P {
			o := P(new(T))
			if err := json.Unmarshal(raw, o); err != nil {
				t.Fatal(err)
			}
			if namespaced {
				o.SetNamespace("corpus")
			}
			if fill != nil {
				fill(o)
			}
			if old != nil {
				o.SetName(old.GetName())
				o.SetResourceVersion("1")
			}
			if place != nil {
				place(o, old)
			}
			return o
		}
		if was == nil {
			return create(read(now, nil))
		}
		old := read(was, nil)
		old.SetResourceVersion("1")
		return update(read(now, old), old)
	}
}

// nameLimits names a nameless limit range, as upstream does before it checks one.
func nameLimits(l, _ *corev1.LimitRange) {
	if l.Name == "" {
		l.Name = "random"
	}
}

// nameNamespace gives a namespace the label that the row gives it.
func nameNamespace(ns *corev1.Namespace) {
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	if ns.Name != "" {
		ns.Labels[corev1.LabelMetadataName] = ns.Name
	}
}

// placeService gives a service an address, and takes from it what its type no longer needs.
func placeService(s, old *corev1.Service) {
	if s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP == "" && old != nil {
		s.Spec.ClusterIP = old.Spec.ClusterIP
	}
	if s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP == "" {
		s.Spec.ClusterIP = "10.96.0.7"
	}
	if s.Spec.ClusterIP != "" {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	if old == nil || s.Spec.Type == old.Spec.Type {
		return
	}
	if old.Spec.Type == corev1.ServiceTypeLoadBalancer {
		s.Spec.AllocateLoadBalancerNodePorts, s.Spec.LoadBalancerClass = nil, nil
	}
	if s.Spec.Type != corev1.ServiceTypeNodePort && len(s.Spec.ExternalIPs) == 0 || s.Spec.Type != corev1.ServiceTypeClusterIP {
		s.Spec.ExternalTrafficPolicy = ""
	}
}

// TestRecordedObjects holds our errors equal, to the letter, to those upstream answered.
func TestRecordedObjects(t *testing.T) {
	f, err := os.Open("testdata/objects-1.36.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	var verb string
	type tally struct{ same, all int }
	tallies := map[string]*tally{}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Body != nil {
			body, _ = json.Marshal(r.Body)
		}
		if r.Verb != "" {
			verb = r.Verb
		}
		var sent map[string]any
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatal(err)
		}
		kind, what := sent["kind"].(string), verb
		if r.Remove != nil {
			what += " without " + *r.Remove
			change(sent, *r.Remove, nil, true)
		}
		if r.Replace != nil {
			what += " with another " + *r.Replace
			change(sent, *r.Replace, r.With, false)
		}
		check := checkers[kind]
		if check == nil {
			t.Fatalf("no checker of %s", kind)
		}
		now, _ := json.Marshal(sent)
		was := body
		if verb == "POST" {
			was = nil
		}
		var got [][3]string
		for _, e := range check(t, now, was) {
			got = append(got, [3]string{e.Field, string(e.Type), e.ErrorBody()})
		}
		n := tallies[kind]
		if n == nil {
			n = &tally{}
			tallies[kind] = n
		}
		n.all++
		if reflect.DeepEqual(got, r.Answer.Causes) {
			n.same++
			continue
		}
		t.Errorf("%s %s:\n got %.900q\nwant %.900q", kind, what, got, r.Answer.Causes)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for kind := range checkers {
		if tallies[kind] == nil {
			t.Errorf("%s: nothing recorded", kind)
			continue
		}
		t.Logf("%s: %d of %d", kind, tallies[kind].same, tallies[kind].all)
	}
}
