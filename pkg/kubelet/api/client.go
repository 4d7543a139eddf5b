// Package api is the kubelet's client of the API server: the few kinds a node reads and writes, and no more.
//
// Flow: New makes one connection pool for all -> a Resource per kind does get, create, update, patch, delete; ListWatch
// feeds an informer. The clientset of client-go knows every kind there is, and costs a node a third of its memory.
// A Client may be used from any goroutine.
package api

import (
	"context"
	"fmt"
	"net/http"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	certv1 "k8s.io/api/certificates/v1"
	coordv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Client reaches the kinds of a node.
type Client struct {
	Pods             Resource[v1.Pod, *v1.Pod]
	Nodes            Resource[v1.Node, *v1.Node]
	Services         Resource[v1.Service, *v1.Service]
	ConfigMaps       Resource[v1.ConfigMap, *v1.ConfigMap]
	Secrets          Resource[v1.Secret, *v1.Secret]
	Events           Resource[v1.Event, *v1.Event]
	Claims           Resource[v1.PersistentVolumeClaim, *v1.PersistentVolumeClaim]
	Volumes          Resource[v1.PersistentVolume, *v1.PersistentVolume]
	ServiceAccounts  Resource[v1.ServiceAccount, *v1.ServiceAccount]
	Tokens           Resource[authnv1.TokenRequest, *authnv1.TokenRequest]
	Leases           Resource[coordv1.Lease, *coordv1.Lease]
	RuntimeClasses   Resource[nodev1.RuntimeClass, *nodev1.RuntimeClass]
	TokenReviews     Resource[authnv1.TokenReview, *authnv1.TokenReview]
	AccessReviews    Resource[authzv1.SubjectAccessReview, *authzv1.SubjectAccessReview]
	Requests         Resource[certv1.CertificateSigningRequest, *certv1.CertificateSigningRequest]
	CSINodes         Resource[storagev1.CSINode, *storagev1.CSINode]
	CSIDrivers       Resource[storagev1.CSIDriver, *storagev1.CSIDriver]
	VolumeAttachment Resource[storagev1.VolumeAttachment, *storagev1.VolumeAttachment]
	ResourceClaims   Resource[resourcev1.ResourceClaim, *resourcev1.ResourceClaim]
	ResourceSlices   slices
	TrustBundles     trustBundles
	PodCertificates  Resource[certv1.PodCertificateRequest, *certv1.PodCertificateRequest]
}

// Scheme knows the kinds of a Client, for whoever must name them.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1.AddToScheme, authnv1.AddToScheme, authzv1.AddToScheme, certv1.AddToScheme,
		coordv1.AddToScheme, nodev1.AddToScheme, storagev1.AddToScheme, resourcev1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s, nil
}

// New makes a Client; nothing is sent yet.
func New(cfg *rest.Config) (*Client, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	a := &access{cfg: cfg, http: hc, codecs: serializer.NewCodecFactory(scheme).WithoutConversion(), params: runtime.NewParameterCodec(scheme)}
	core := a.group(v1.SchemeGroupVersion)
	authn, authz, certs := a.group(authnv1.SchemeGroupVersion), a.group(authzv1.SchemeGroupVersion), a.group(certv1.SchemeGroupVersion)
	coord, node, storage := a.group(coordv1.SchemeGroupVersion), a.group(nodev1.SchemeGroupVersion), a.group(storagev1.SchemeGroupVersion)
	dynamic := a.group(resourcev1.SchemeGroupVersion)
	c := &Client{
		Pods: resource[v1.Pod](core, "pods"), Nodes: resource[v1.Node](core, "nodes"), Services: resource[v1.Service](core, "services"),
		ConfigMaps: resource[v1.ConfigMap](core, "configmaps"), Secrets: resource[v1.Secret](core, "secrets"), Events: resource[v1.Event](core, "events"),
		Claims: resource[v1.PersistentVolumeClaim](core, "persistentvolumeclaims"), Volumes: resource[v1.PersistentVolume](core, "persistentvolumes"),
		ServiceAccounts: resource[v1.ServiceAccount](core, "serviceaccounts"),
		Tokens:          resource[authnv1.TokenRequest](core, "serviceaccounts"), Leases: resource[coordv1.Lease](coord, "leases"),
		RuntimeClasses: resource[nodev1.RuntimeClass](node, "runtimeclasses"), TokenReviews: resource[authnv1.TokenReview](authn, "tokenreviews"),
		AccessReviews:   resource[authzv1.SubjectAccessReview](authz, "subjectaccessreviews"),
		Requests:        resource[certv1.CertificateSigningRequest](certs, "certificatesigningrequests"),
		TrustBundles:    trustBundles{resource[certv1.ClusterTrustBundle](certs, "clustertrustbundles")},
		PodCertificates: resource[certv1.PodCertificateRequest](certs, "podcertificaterequests"),
		CSINodes:        resource[storagev1.CSINode](storage, "csinodes"), CSIDrivers: resource[storagev1.CSIDriver](storage, "csidrivers"),
		VolumeAttachment: resource[storagev1.VolumeAttachment](storage, "volumeattachments"),
		ResourceClaims:   resource[resourcev1.ResourceClaim](dynamic, "resourceclaims"),
		ResourceSlices:   slices{resource[resourcev1.ResourceSlice](dynamic, "resourceslices")},
	}
	return c, a.err
}

// access makes the REST clients of groups, all over one pool; err is the first that failed.
type access struct {
	cfg    *rest.Config
	http   *http.Client
	codecs runtime.NegotiatedSerializer
	params runtime.ParameterCodec
	err    error
}

type group struct {
	rest   rest.Interface
	params runtime.ParameterCodec
}

func (a *access) group(gv schema.GroupVersion) group {
	cfg := *a.cfg
	cfg.GroupVersion, cfg.APIPath, cfg.NegotiatedSerializer = &gv, "/apis", a.codecs
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	c, err := rest.RESTClientForConfigAndClient(&cfg, a.http)
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("making a client for %s: %w", gv, err)
	}
	return group{c, a.params}
}

// object is a pointer to T which is an API object.
type object[T any] interface {
	*T
	runtime.Object
}

// Resource is one kind. A namespace of "" is a kind's that has none.
type Resource[T any, P object[T]] struct {
	group
	name string
}

func resource[T any, P object[T]](g group, name string) Resource[T, P] {
	return Resource[T, P]{g, name}
}

// Get reads one object.
func (r Resource[T, P]) Get(ctx context.Context, ns, name string) (P, error) {
	out := P(new(T))
	err := r.rest.Get().NamespaceIfScoped(ns, ns != "").Resource(r.name).Name(name).Do(ctx).Into(out)
	return out, err
}

// Create makes one object, or with a subresource posts to that of the named one.
func (r Resource[T, P]) Create(ctx context.Context, ns string, obj P, to ...string) (P, error) {
	out := P(new(T))
	req := r.rest.Post().NamespaceIfScoped(ns, ns != "").Resource(r.name)
	if len(to) > 0 {
		req = req.Name(to[0]).SubResource(to[1:]...)
	}
	return out, req.Body(obj).Do(ctx).Into(out)
}

// Update writes one object whole.
func (r Resource[T, P]) Update(ctx context.Context, ns, name string, obj P) (P, error) {
	out := P(new(T))
	return out, r.rest.Put().NamespaceIfScoped(ns, ns != "").Resource(r.name).Name(name).Body(obj).Do(ctx).Into(out)
}

// Patch changes one object, or a subresource of it.
func (r Resource[T, P]) Patch(ctx context.Context, ns, name string, kind types.PatchType, data []byte, sub ...string) (P, error) {
	out := P(new(T))
	return out, r.rest.Patch(kind).NamespaceIfScoped(ns, ns != "").Resource(r.name).Name(name).SubResource(sub...).Body(data).Do(ctx).Into(out)
}

// Delete removes one object.
func (r Resource[T, P]) Delete(ctx context.Context, ns, name string, o metav1.DeleteOptions) error {
	return r.rest.Delete().NamespaceIfScoped(ns, ns != "").Resource(r.name).Name(name).Body(&o).Do(ctx).Error()
}

// ListWatch is what an informer of all matching objects reads from.
func (r Resource[T, P]) ListWatch(selector fields.Selector) *cache.ListWatch {
	return cache.NewListWatchFromClient(r.rest, r.name, metav1.NamespaceAll, selector)
}
