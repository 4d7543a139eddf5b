package garbage

import (
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metadatafake "k8s.io/client-go/metadata/fake"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// TestOwnerNeverSeen: an owner comes and goes while its informer is away, so the graph hears of neither. Who depends on it
// was looked at in between, and goes all the same.
func TestOwnerNeverSeen(t *testing.T) {
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	object := func(kind, name string, uid types.UID, owners ...metav1.OwnerReference) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: apps.String(), Kind: kind},
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: uid, OwnerReferences: owners},
		}
	}
	owner := object("Deployment", "web", "1")
	child := object("ReplicaSet", "web-1", "2", metav1.OwnerReference{APIVersion: apps.String(), Kind: "Deployment", Name: "web", UID: "1"})
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := metadatafake.NewSimpleMetadataClient(scheme, owner, child)
	deployments, sets := apps.WithResource("deployments"), apps.WithResource("replicasets")
	c := &collector{
		objects: objects, graph: newGraph(), watched: map[schema.GroupVersionResource]*watched{deployments: {}},
		kinds: map[schema.GroupKind]known{{Group: "apps", Kind: "Deployment"}: {deployments, true}, {Group: "apps", Kind: "ReplicaSet"}: {sets, true}},
	}
	c.filled.Store(true)
	c.seen(sets, child)

	again, err := c.reconcile(t.Context(), runtime.Key{Name: "2"})
	if err != nil || again != notYet {
		t.Fatalf("an owner that is there, and not in the graph, is looked for again in %v, error %v; want %v", again, err, notYet)
	}
	if err := objects.Resource(deployments).Namespace("a").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if again, err = c.reconcile(t.Context(), runtime.Key{Name: "2"}); err != nil || again != 0 {
		t.Fatal(again, err)
	}
	if _, err := objects.Resource(sets).Namespace("a").Get(t.Context(), "web-1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatalf("the dependent is still there: %v", err)
	}
}

// TestOrphansOfNewKind: an owner that is to leave its dependents is told of before them, as its informer is new, and
// nobody but its dependents says when they are free of it.
func TestOrphansOfNewKind(t *testing.T) {
	group := schema.GroupVersion{Group: "example.com", Version: "v1"}
	gvr := group.WithResource("things")
	now := metav1.Now()
	object := func(name string, uid types.UID, owners ...metav1.OwnerReference) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: group.String(), Kind: "Thing"}, ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: uid, OwnerReferences: owners}}
	}
	owner := object("owner", "1")
	owner.DeletionTimestamp, owner.Finalizers = &now, []string{metav1.FinalizerOrphanDependents}
	child := object("child", "2", metav1.OwnerReference{APIVersion: group.String(), Kind: "Thing", Name: "owner", UID: "1"})
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := metadatafake.NewSimpleMetadataClient(scheme, owner, child)
	full := false
	c := &collector{
		objects: objects, graph: newGraph(), kinds: map[schema.GroupKind]known{{Group: group.Group, Kind: "Thing"}: {gvr, true}},
		watched: map[schema.GroupVersionResource]*watched{gvr: {told: func() bool { return full }, since: time.Now()}},
	}
	c.filled.Store(true)
	var asked []string
	enqueue := func(k runtime.Key) { asked = append(asked, k.Name) }
	c.enqueue.Store(&enqueue)

	c.seen(gvr, owner)
	if again, err := c.reconcile(t.Context(), runtime.Key{Name: "1"}); err != nil || again != notYet {
		t.Fatalf("decided while the informer is being filled: again %v, error %v", again, err)
	}
	c.seen(gvr, child)
	full = true
	if again, err := c.reconcile(t.Context(), runtime.Key{Name: "1"}); err != nil || again != 0 {
		t.Fatal(again, err)
	}
	asked = nil
	c.seen(gvr, object("child", "2"))
	if !slices.Contains(asked, "1") {
		t.Fatalf("the owner is not asked about when its last dependent is free: %v", asked)
	}
	if again, err := c.reconcile(t.Context(), runtime.Key{Name: "1"}); err != nil || again != 0 {
		t.Fatal(again, err)
	}
	left, err := objects.Resource(gvr).Namespace("a").Get(t.Context(), "owner", metav1.GetOptions{})
	if err != nil || len(left.Finalizers) != 0 {
		t.Fatalf("the owner keeps %v, error %v", left, err)
	}
}

// TestSoundIsNotAsked: an object whose owner stands is not decided about when it appears, and is once the owner goes; one whose owner
// is not known, goes already, or cannot be its owner, is at once.
func TestSoundIsNotAsked(t *testing.T) {
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	now := metav1.Now()
	object := func(namespace, name string, uid types.UID, owners ...types.UID) *metav1.PartialObjectMetadata {
		m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}}
		for _, o := range owners {
			m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{APIVersion: apps.String(), Kind: "ReplicaSet", Name: string("set-" + o), UID: o})
		}
		return m
	}
	var asked []string
	c := &collector{graph: newGraph()}
	enqueue := func(k runtime.Key) { asked = append(asked, k.Name) }
	c.enqueue.Store(&enqueue)
	sets := apps.WithResource("replicasets")
	leaving := object("a", "set-2", "2")
	leaving.DeletionTimestamp, leaving.Finalizers = &now, []string{metav1.FinalizerDeleteDependents}
	owner := object("a", "set-1", "1")
	c.seen(sets, owner)
	c.seen(sets, leaving)
	asked = nil
	for _, x := range []struct {
		m    *metav1.PartialObjectMetadata
		asks bool
	}{
		{object("a", "sound", "11", "1"), false},
		{object("a", "free", "12"), false},
		{object("a", "unknown", "13", "3"), true},
		{object("a", "waited-for", "14", "2"), true},
		{object("b", "astray", "15", "1"), true},
		{object("a", "two", "16", "1", "2"), true},
	} {
		asked = nil
		c.seen(pods, x.m)
		if got := slices.Contains(asked, string(x.m.UID)); got != x.asks {
			t.Errorf("%s: asked about: %v", x.m.Name, got)
		}
	}
	asked = nil
	c.lost(owner)
	if !slices.Contains(asked, "11") {
		t.Errorf("the owner goes, and its dependent is not asked about: %v", asked)
	}
}
