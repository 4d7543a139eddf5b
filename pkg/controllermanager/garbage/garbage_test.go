package garbage

import (
	"testing"

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
