package suite

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

func (c *client) config() *rest.Config {
	return &rest.Config{Host: c.URL, BearerToken: rig.AdminToken, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
}

// TestInformers runs client-go's informers of all kinds (typed over protobuf, metadata, dynamic over a custom resource)
// over a server that is killed and started again on the same etcd: they follow, and come to the same state as a list.
func TestInformers(t *testing.T) {
	t.Parallel()
	_, dbURL := rig.NewEtcd(t)
	p, s := newServer(t, dbURL)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s.Must(t, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", `{"metadata":{"name":"widgets.suite.example.com"},"spec":{"group":"suite.example.com","scope":"Namespaced",
		"names":{"plural":"widgets","kind":"Widget","listKind":"WidgetList"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`)
	config := s.config()
	typed := rest.CopyConfig(config)
	typed.ContentType = "application/vnd.kubernetes.protobuf"
	set, err := kubernetes.NewForConfig(typed)
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	maps, widgets := corev1.SchemeGroupVersion.WithResource("configmaps"), metav1.SchemeGroupVersion.WithResource("widgets")
	widgets.Group = "suite.example.com"
	f, m, d := informers.NewSharedInformerFactory(set, 0), metadatainformer.NewSharedInformerFactory(meta, 0), dynamicinformer.NewDynamicSharedInformerFactory(dyn, 0)
	all := map[string]cache.SharedIndexInformer{
		"typed": f.Core().V1().ConfigMaps().Informer(), "metadata": m.ForResource(maps).Informer(), "dynamic": d.ForResource(maps).Informer(), "custom": d.ForResource(widgets).Informer(),
	}
	var mu sync.Mutex
	last := map[string]string{} // informer and object -> its resourceVersion when last told of
	for name, i := range all {
		note := func(obj any) {
			if o, ok := obj.(metav1.Object); ok {
				mu.Lock()
				defer mu.Unlock()
				last[name+" "+o.GetNamespace()+"/"+o.GetName()] = o.GetResourceVersion()
			}
		}
		if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: note, UpdateFunc: func(_, obj any) { note(obj) }}); err != nil {
			t.Fatal(err)
		}
	}
	f.Start(ctx.Done())
	m.Start(ctx.Done())
	d.Start(ctx.Done())
	for name, i := range all {
		if !cache.WaitForCacheSync(ctx.Done(), i.HasSynced) {
			t.Fatalf("the %s informer did not sync", name)
		}
	}
	write := func(from, to int) {
		for n := from; n < to; n++ {
			for try := 0; ; try++ {
				_, err := set.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", n), Labels: map[string]string{"n": "1"}}}, metav1.CreateOptions{})
				if err == nil {
					_, err = dyn.Resource(widgets).Namespace("default").Create(ctx, &unstructured.Unstructured{Object: map[string]any{
						"apiVersion": "suite.example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": fmt.Sprint("c", n)}, "spec": map[string]any{"n": int64(n)},
					}}, metav1.CreateOptions{})
				}
				if err == nil {
					break
				}
				if try > 100 {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
	settled := func(want int) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for name, i := range all {
			for {
				n := 0
				for _, o := range i.GetStore().List() {
					if o.(metav1.Object).GetNamespace() == "default" && o.(metav1.Object).GetName()[0] == 'c' {
						n++
					}
				}
				if n == want {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the %s informer has %d of %d objects", name, n, want)
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	write(0, 20)
	settled(20)
	p.Kill()
	p.Start(t)
	s.Ready(t, 30*time.Second)
	write(20, 40)
	if err := set.CoreV1().ConfigMaps("default").Delete(ctx, "c3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := dyn.Resource(widgets).Namespace("default").Delete(ctx, "c3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	settled(39)
	list, err := f.Core().V1().ConfigMaps().Lister().List(labels.SelectorFromSet(labels.Set{"n": "1"}))
	if err != nil || len(list) != 39 {
		t.Errorf("the lister has %d objects, %v", len(list), err)
	}
	for _, c := range list {
		mu.Lock()
		for _, name := range []string{"typed", "metadata", "dynamic"} {
			if got := last[name+" default/"+c.Name]; got != c.ResourceVersion {
				t.Errorf("the %s informer told of %s at %q, it is at %s", name, c.Name, got, c.ResourceVersion)
			}
		}
		mu.Unlock()
	}
}

// TestLeaderElection lets two candidates hold one lease over two servers: never both, and the second takes over.
func TestLeaderElection(t *testing.T) {
	t.Parallel()
	_, dbURL := rig.NewEtcd(t)
	_, a := newServer(t, dbURL)
	_, b := newServer(t, dbURL)
	var mu sync.Mutex
	leads, order := "", []string{}
	run := func(ctx context.Context, s *client, id string) {
		set, err := kubernetes.NewForConfig(s.config())
		if err != nil {
			t.Error(err)
			return
		}
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock:          &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: "default", Name: "one"}, Client: set.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: id}},
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {
					mu.Lock()
					defer mu.Unlock()
					if leads != "" {
						t.Errorf("%s leads while %s does", id, leads)
					}
					leads = id
					order = append(order, id)
				},
				OnStoppedLeading: func() {
					mu.Lock()
					defer mu.Unlock()
					if leads == id {
						leads = ""
					}
				},
			},
		})
	}
	await := func(n int) string {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for {
			mu.Lock()
			have := len(order)
			id := leads
			mu.Unlock()
			if have == n && id != "" {
				return id
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d times somebody led, want %d", have, n)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	stops := map[string]context.CancelFunc{}
	var wg sync.WaitGroup
	for id, s := range map[string]*client{"first": a, "second": b} {
		ctx, stop := context.WithCancel(t.Context())
		stops[id] = stop
		wg.Go(func() { run(ctx, s, id) })
	}
	leader := await(1)
	stops[leader]()
	if next := await(2); next == leader {
		t.Errorf("%s leads again", next)
	}
	for _, stop := range stops {
		stop()
	}
	wg.Wait()
}
