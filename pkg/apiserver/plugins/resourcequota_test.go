package plugins

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// ledger is a world whose quotas can be written.
type ledger struct {
	world
	mu *sync.Mutex
}

func (l ledger) Mutate(_ context.Context, gr schema.GroupResource, namespace, name string, fn func(kind.Object) error) (kind.Object, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, o := range l.objects[gr] {
		if o.GetNamespace() != namespace || o.GetName() != name {
			continue
		}
		changed := o.DeepCopyObject().(kind.Object)
		if err := fn(changed); err != nil {
			return nil, err
		}
		l.objects[gr][i] = changed
		return changed, nil
	}
	return nil, apierrors.NewNotFound(gr, name)
}

// List answers a copy: the ledger is written by many at once.
func (l ledger) List(ctx context.Context, gr schema.GroupResource, namespace string) ([]kind.Object, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.world.List(ctx, gr, namespace)
}

// used shows what a quota has counted.
func (l ledger) used(name string) string {
	q, err := l.Get(context.Background(), quotas, "a", name)
	if err != nil {
		return err.Error()
	}
	var parts []string
	list := q.(*corev1.ResourceQuota).Status.Used
	for _, n := range sortedNames(list) {
		v := list[n]
		parts = append(parts, fmt.Sprintf("%s=%s", n, v.String()))
	}
	return strings.Join(parts, ",")
}

func quota(name string, hard, used corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name},
		Spec:   corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes},
		Status: corev1.ResourceQuotaStatus{Hard: hard, Used: used}}
}

func books(qs ...*corev1.ResourceQuota) ledger {
	l := ledger{world{objects: map[schema.GroupResource][]kind.Object{}}, &sync.Mutex{}}
	for _, q := range qs {
		l.objects[quotas] = append(l.objects[quotas], q)
	}
	return l
}

// write asks the plugin about a write in namespace "a"; old is nil for a new object.
func (l ledger) write(p admission.Plugin, def kind.Def, obj, old runtime.Object, dry bool) error {
	def.Namespaced = true
	r := &admission.Request{
		Verb: admission.Create, Def: &def, Resource: schema.GroupVersionResource{Group: def.Group, Version: "v1", Resource: def.Resource},
		Namespace: "a", Name: "x", Object: obj, Env: l, DryRun: dry,
	}
	if old != nil {
		r.Verb, r.Old = admission.Update, old
	}
	return admission.Chain{p}.Validate(context.Background(), r)
}

var (
	podDef     = kind.Def{Kind: "Pod", Resource: "pods"}
	serviceDef = kind.Def{Kind: "Service", Resource: "services"}
	claimDef   = kind.Def{Kind: "PersistentVolumeClaim", Resource: "persistentvolumeclaims"}
	secretDef  = kind.Def{Kind: "Secret", Resource: "secrets"}
	deployDef  = kind.Def{Kind: "Deployment", Group: "apps", Resource: "deployments"}
)

func TestResourceQuotaCharges(t *testing.T) {
	class := "gold"
	claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "5Gi")}}}
	bigger := claim.DeepCopy()
	bigger.Spec.Resources.Requests = amounts("storage", "7Gi")
	balancer := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: make([]corev1.ServicePort, 2)}}
	bare := balancer.DeepCopy()
	bare.Spec.Type = corev1.ServiceTypeClusterIP
	deadline := &corev1.Pod{Spec: corev1.PodSpec{ActiveDeadlineSeconds: new(int64(5))}}
	ranked := &corev1.Pod{Spec: corev1.PodSpec{PriorityClassName: "high"}}
	sized := onePod(amounts("cpu", "1", "memory", "1Gi"), amounts("cpu", "2"))
	for _, c := range []struct {
		name       string
		q          *corev1.ResourceQuota
		def        kind.Def
		obj, old   runtime.Object
		want, used string
	}{
		{"a pod", quota("q", amounts("pods", "1"), amounts("pods", "0")), podDef, &corev1.Pod{}, nil, "", "pods=1"},
		{"one too many", quota("q", amounts("pods", "1"), amounts("pods", "1")), podDef, &corev1.Pod{}, nil,
			`pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1`, "pods=1"},
		{"compute", quota("q", amounts("requests.cpu", "3", "limits.cpu", "2", "memory", "4Gi"), amounts("requests.cpu", "1", "limits.cpu", "0", "memory", "0")), podDef, sized, nil, "", "limits.cpu=2,memory=1Gi,requests.cpu=2"},
		{"too much of two", quota("q", amounts("cpu", "1", "memory", "1Gi", "pods", "9"), amounts("cpu", "500m", "memory", "1Mi", "pods", "0")), podDef, sized, nil,
			`pods "x" is forbidden: exceeded quota: q, requested: cpu=1,memory=1Gi, used: cpu=500m,memory=1Mi, limited: cpu=1,memory=1Gi`, "cpu=500m,memory=1Mi,pods=0"},
		{"says nothing of cpu", quota("q", amounts("limits.cpu", "1", "requests.cpu", "1"), amounts("limits.cpu", "0", "requests.cpu", "0")), podDef, onePod(nil, nil), nil,
			`pods "x" is forbidden: failed quota: q: must specify limits.cpu for: c; requests.cpu for: c`, "limits.cpu=0,requests.cpu=0"},
		{"not counted yet", quota("q", amounts("pods", "1"), nil), podDef, &corev1.Pod{}, nil, `pods "x" is forbidden: status unknown for quota: q, resources: pods`, ""},
		{"an extended resource", quota("q", amounts("requests.example.com/gpu", "1"), amounts("requests.example.com/gpu", "0")), podDef, onePod(amounts("example.com/gpu", "2"), nil), nil,
			`pods "x" is forbidden: exceeded quota: q, requested: requests.example.com/gpu=2, used: requests.example.com/gpu=0, limited: requests.example.com/gpu=1`, "requests.example.com/gpu=0"},
		{"of the scope", quota("q", amounts("pods", "1"), amounts("pods", "0"), corev1.ResourceQuotaScopeTerminating), podDef, deadline, nil, "", "pods=1"},
		{"not of the scope", quota("q", amounts("pods", "1"), amounts("pods", "0"), corev1.ResourceQuotaScopeNotTerminating), podDef, deadline, nil, "", "pods=0"},
		{"best effort", quota("q", amounts("pods", "1"), amounts("pods", "0"), corev1.ResourceQuotaScopeBestEffort), podDef, sized, nil, "", "pods=0"},
		{"not best effort", quota("q", amounts("pods", "1"), amounts("pods", "0"), corev1.ResourceQuotaScopeNotBestEffort), podDef, sized, nil, "", "pods=1"},
		{"with a priority", quota("q", amounts("pods", "1"), amounts("pods", "0"), corev1.ResourceQuotaScopePriorityClass), podDef, ranked, nil, "", "pods=1"},
		{"without a priority", quota("q", amounts("pods", "1"), amounts("pods", "0"), corev1.ResourceQuotaScopePriorityClass), podDef, sized, nil, "", "pods=0"},
		{"a balancer", quota("q", amounts("services", "1", "services.loadbalancers", "1", "services.nodeports", "2"), amounts("services", "0", "services.loadbalancers", "0", "services.nodeports", "0")),
			serviceDef, balancer, nil, "", "services=1,services.loadbalancers=1,services.nodeports=2"},
		{"a balancer no more", quota("q", amounts("services", "1", "services.loadbalancers", "1", "services.nodeports", "2"), amounts("services", "1", "services.loadbalancers", "1", "services.nodeports", "2")),
			serviceDef, bare, balancer, "", "services=1,services.loadbalancers=0,services.nodeports=0"},
		{"a claim", quota("q", amounts("requests.storage", "9Gi", "gold.storageclass.storage.k8s.io/requests.storage", "6Gi", "persistentvolumeclaims", "1"),
			amounts("requests.storage", "0", "gold.storageclass.storage.k8s.io/requests.storage", "0", "persistentvolumeclaims", "0")), claimDef, claim, nil, "",
			"gold.storageclass.storage.k8s.io/requests.storage=5Gi,persistentvolumeclaims=1,requests.storage=5Gi"},
		{"a claim that grows", quota("q", amounts("requests.storage", "6Gi"), amounts("requests.storage", "5Gi")), claimDef, bigger, claim,
			`persistentvolumeclaims "x" is forbidden: exceeded quota: q, requested: requests.storage=2Gi, used: requests.storage=5Gi, limited: requests.storage=6Gi`, "requests.storage=5Gi"},
		{"a claim that shrinks beyond the limit", quota("q", amounts("requests.storage", "1Gi"), amounts("requests.storage", "7Gi")), claimDef, claim, bigger, "", "requests.storage=5Gi"},
		{"a secret", quota("q", amounts("secrets", "1", "count/secrets", "2"), amounts("secrets", "0", "count/secrets", "0")), secretDef, &corev1.Secret{}, nil, "", "count/secrets=1,secrets=1"},
		{"one of a group", quota("q", amounts("count/deployments.apps", "0"), amounts("count/deployments.apps", "0")), deployDef, &corev1.Secret{}, nil,
			`deployments.apps "x" is forbidden: exceeded quota: q, requested: count/deployments.apps=1, used: count/deployments.apps=0, limited: count/deployments.apps=0`, "count/deployments.apps=0"},
	} {
		for _, dry := range []bool{true, false} {
			l := books(c.q.DeepCopy())
			before := l.used("q")
			got := ""
			if err := l.write(made(t, ResourceQuota, ""), c.def, c.obj, c.old, dry); err != nil {
				got = err.Error()
			}
			want := c.used
			if dry {
				want = before
			}
			if got != c.want || l.used("q") != want {
				t.Errorf("%s (dry run %v): answered %q, want %q; used %s, want %s", c.name, dry, got, c.want, l.used("q"), want)
			}
		}
	}
}

func TestARefusalChargesNoQuota(t *testing.T) {
	l := books(quota("a", amounts("pods", "5"), amounts("pods", "2")), quota("b", amounts("pods", "1"), amounts("pods", "1")))
	if err := l.write(made(t, ResourceQuota, ""), podDef, &corev1.Pod{}, nil, false); !apierrors.IsForbidden(err) {
		t.Errorf("answered %v", err)
	}
	if l.used("a") != "pods=2" || l.used("b") != "pods=1" {
		t.Errorf("charged to %s and %s", l.used("a"), l.used("b"))
	}
}

// However many pods come at once, as many as fit are let in and counted.
func TestQuotaIsNeverOverrun(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit, want := rapid.IntRange(0, 20).Draw(rt, "limit"), rapid.IntRange(0, 30).Draw(rt, "pods")
		l := books(quota("q", amounts("pods", fmt.Sprint(limit)), amounts("pods", "0")))
		p := made(t, ResourceQuota, "")
		results := make(chan error, want)
		for range want {
			go func() { results <- l.write(p, podDef, &corev1.Pod{}, nil, false) }()
		}
		in := 0
		for range want {
			if <-results == nil {
				in++
			}
		}
		if in != min(limit, want) || l.used("q") != fmt.Sprintf("pods=%d", in) {
			rt.Fatalf("%d of %d let in where %d fit; used %s", in, want, limit, l.used("q"))
		}
	})
}
