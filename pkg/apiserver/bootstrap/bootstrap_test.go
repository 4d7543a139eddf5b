package bootstrap

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// env keeps objects in a map. It fails as often as it is told to.
type env struct {
	kind.Env
	mu      sync.Mutex
	objects map[string]kind.Object
	writes  int
	fail    int
}

func at(gr schema.GroupResource, ns, name string) string { return gr.String() + "/" + ns + "/" + name }

func (e *env) trouble() error {
	if e.fail > 0 {
		e.fail--
		return errors.New("etcd is away")
	}
	return nil
}

func (e *env) Get(_ context.Context, gr schema.GroupResource, ns, name string) (kind.Object, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if o := e.objects[at(gr, ns, name)]; o != nil {
		return o.DeepCopyObject().(kind.Object), e.trouble()
	}
	return nil, apierrors.NewNotFound(gr, name)
}

func (e *env) Create(_ context.Context, gr schema.GroupResource, obj kind.Object) (kind.Object, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.trouble(); err != nil {
		return nil, err
	}
	e.writes++
	e.objects[at(gr, obj.GetNamespace(), obj.GetName())] = obj
	return obj, nil
}

func (e *env) Mutate(_ context.Context, gr schema.GroupResource, ns, name string, fn func(kind.Object) error) (kind.Object, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.objects[at(gr, ns, name)]
	if o == nil {
		return nil, apierrors.NewNotFound(gr, name)
	}
	e.writes++
	return o, fn(o)
}

// get answers an object that has to be there.
func get[T kind.Object](t *testing.T, e *env, gr schema.GroupResource, ns, name string) T {
	t.Helper()
	o, ok := e.objects[at(gr, ns, name)].(T)
	if !ok {
		t.Fatalf("there is no %s %s/%s", gr, ns, name)
	}
	return o
}

// others are the servers of a cluster.
type others struct{ ips []string }

func (o *others) Join(_ context.Context, ip string) error {
	if !slices.Contains(o.ips, ip) {
		o.ips = append(o.ips, ip)
	}
	return nil
}

func (o *others) Leave(_ context.Context, ip string) error {
	o.ips = slices.DeleteFunc(o.ips, func(s string) bool { return s == ip })
	return nil
}

func (o *others) List(context.Context) ([]string, error) { return slices.Clone(o.ips), nil }

var (
	namespaces   = schema.GroupResource{Resource: "namespaces"}
	clusterRoles = schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterroles"}
)

func fresh(t *testing.T, peers Peers) (*env, *Bootstrap) {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, []byte("a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &env{objects: map[string]kind.Object{}}
	return e, New(Config{
		Env: e, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, Advertise: "192.0.2.1", Port: 6443, Peers: peers,
		ClientCAFile: ca, ProxyCAFile: ca, UserHeaders: []string{"X-Remote-User"},
	})
}

// once goes over everything once.
func once(t *testing.T, b *Bootstrap) error {
	t.Helper()
	defaults, err := Objects()
	if err != nil {
		t.Fatal(err)
	}
	return b.once(t.Context(), defaults)
}

// TestObjects makes what every cluster starts with, and nothing more the second time.
func TestObjects(t *testing.T) {
	e, b := fresh(t, nil)
	if err := once(t, b); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		get[*corev1.Namespace](t, e, namespaces, "", ns)
	}
	if rules := get[*rbacv1.ClusterRole](t, e, clusterRoles, "", "cluster-admin").Rules; len(rules) != 2 {
		t.Errorf("cluster-admin has the rules %v", rules)
	}
	s := get[*corev1.Service](t, e, services, "default", "kubernetes")
	if s.Spec.ClusterIP != "10.96.0.1" || s.Spec.Ports[0].TargetPort.IntValue() != 6443 {
		t.Errorf("the service is %+v", s.Spec)
	}
	if c := get[*networkingv1.ServiceCIDR](t, e, cidrs, "", "kubernetes"); !slices.Equal(c.Spec.CIDRs, []string{"10.96.0.0/16"}) || len(c.Status.Conditions) != 1 {
		t.Errorf("the range is %+v", c)
	}
	data := get[*corev1.ConfigMap](t, e, configs, "kube-system", "extension-apiserver-authentication").Data
	if data["client-ca-file"] != "a certificate" || data["requestheader-username-headers"] != `["X-Remote-User"]` || data["requestheader-allowed-names"] != "[]" {
		t.Errorf("what is published is %v", data)
	}
	before := e.writes
	if err := once(t, b); err != nil {
		t.Fatal(err)
	}
	if n := e.writes - before; n > 1 { // the range's condition is looked at where it is
		t.Errorf("the second time wrote %d objects", n)
	}
}

// TestAdministrators keeps what an administrator changed, and gives a role back what it lacks, unless told not to.
func TestAdministrators(t *testing.T) {
	e, b := fresh(t, nil)
	if err := once(t, b); err != nil {
		t.Fatal(err)
	}
	own := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"things"}}
	changed := get[*rbacv1.ClusterRole](t, e, clusterRoles, "", "system:kube-scheduler")
	all := len(changed.Rules)
	changed.Rules = append(changed.Rules[1:], own)
	left := get[*rbacv1.ClusterRole](t, e, clusterRoles, "", "system:kube-controller-manager")
	left.Annotations, left.Rules = map[string]string{rbacv1.AutoUpdateAnnotationKey: "false"}, nil
	delete(e.objects, at(clusterRoles, "", "system:node-proxier"))
	get[*corev1.Namespace](t, e, namespaces, "", "default").Labels = map[string]string{"mine": "yes"}
	if err := once(t, b); err != nil {
		t.Fatal(err)
	}
	if n := len(changed.Rules); n != all+1 {
		t.Errorf("a role with %d rules that had lost one and got another has %d", all, n)
	}
	if len(left.Rules) != 0 {
		t.Error("a role that said otherwise was completed")
	}
	get[*rbacv1.ClusterRole](t, e, clusterRoles, "", "system:node-proxier")
	if get[*corev1.Namespace](t, e, namespaces, "", "default").Labels["mine"] != "yes" {
		t.Error("a namespace's label is gone")
	}
}

// TestTrouble tries again what failed.
func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, b := fresh(t, nil)
		e.fail = 3
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		synctest.Wait()
		if b.Done() {
			t.Error("it is done although nothing could be written")
		}
		time.Sleep(5 * time.Second)
		if !b.Done() {
			t.Error("it is not done after 5 s")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		get[*corev1.Namespace](t, e, namespaces, "", "kube-system")
	})
}

// TestDeleted brings back what somebody deleted and no cluster can do without.
func TestDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, b := fresh(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		time.Sleep(time.Second)
		remove := func(gr schema.GroupResource, ns, name string) {
			get[kind.Object](t, e, gr, ns, name)
			e.mu.Lock()
			defer e.mu.Unlock()
			delete(e.objects, at(gr, ns, name))
		}
		remove(services, "default", "kubernetes")
		remove(namespaces, "", "kube-node-lease")
		time.Sleep(serviceEvery)
		get[*corev1.Service](t, e, services, "default", "kubernetes")
		time.Sleep(defaultsEvery)
		get[*corev1.Namespace](t, e, namespaces, "", "kube-node-lease")
		before := e.writes
		time.Sleep(5 * defaultsEvery)
		if e.writes != before {
			t.Errorf("%d writes of what is right", e.writes-before)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// TestPeers points the service at every server that is there.
func TestPeers(t *testing.T) {
	all := &others{ips: []string{"192.0.2.3"}}
	e, b := fresh(t, all)
	ends := func() string {
		var in, slice []string
		for _, a := range get[*corev1.Endpoints](t, e, endpoints, "default", "kubernetes").Subsets[0].Addresses {
			in = append(in, a.IP)
		}
		for _, end := range get[*discoveryv1.EndpointSlice](t, e, slicesGR, "default", "kubernetes").Endpoints {
			slice = append(slice, end.Addresses...)
		}
		if !slices.Equal(in, slice) {
			t.Errorf("the endpoints are %v and the slice's %v", in, slice)
		}
		return strings.Join(in, " ")
	}
	step := func(what, want string, f func(context.Context) error) {
		t.Helper()
		if err := f(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := ends(); got != want {
			t.Errorf("%s: the service is at %s, want %s", what, got, want)
		}
	}
	step("with another", "192.0.2.1 192.0.2.3", b.endpoints)
	all.ips = append(all.ips, "192.0.2.2")
	step("with two others", "192.0.2.1 192.0.2.2 192.0.2.3", b.endpoints)
	before := e.writes
	step("with nothing new", "192.0.2.1 192.0.2.2 192.0.2.3", b.endpoints)
	if e.writes != before {
		t.Error("what is right was written again")
	}
	step("leaving", "192.0.2.2 192.0.2.3", b.Leave)
	step("having left", "192.0.2.2 192.0.2.3", b.endpoints)
	all.ips = nil
	step("the last one", "192.0.2.2 192.0.2.3", b.Leave)
}
