package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	certv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/kubelet/api"
)

// errStandalone is why a static pod of a kubelet without an API server gets no API objects.
var errStandalone = errors.New("this kubelet has no API server to read it from")

// freshness is how old a cached configMap or secret may be. One object is read by many pods (kube-root-ca.crt by all).
const freshness = 10 * time.Second

// objects reads what pods refer to, with a short memory.
type objects struct {
	client   *api.Client
	services cache.Indexer
	synced   func() bool

	mu   sync.Mutex
	memo map[string]*memo
}

type memo struct {
	mu  sync.Mutex
	at  time.Time
	obj any
}

// remember answers a fresh enough object or gets it, once for all who ask at the same time.
func remember[T any](ctx context.Context, o *objects, key string, get func(context.Context) (T, error)) (T, error) {
	var zero T
	if o.client == nil {
		return zero, errStandalone
	}
	o.mu.Lock()
	if o.memo == nil {
		o.memo = map[string]*memo{}
	}
	if len(o.memo) > 512 {
		for k, m := range o.memo {
			if m.mu.TryLock() {
				if time.Since(m.at) > freshness {
					delete(o.memo, k)
				}
				m.mu.Unlock()
			}
		}
	}
	m := o.memo[key]
	if m == nil {
		m = &memo{}
		o.memo[key] = m
	}
	o.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if obj, ok := m.obj.(T); ok && time.Since(m.at) < freshness {
		return obj, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	obj, err := get(ctx)
	if err != nil {
		return zero, err
	}
	m.obj, m.at = obj, time.Now()
	return obj, nil
}

func (o *objects) ConfigMap(ctx context.Context, ns, name string) (*v1.ConfigMap, error) {
	return remember(ctx, o, "configmap/"+ns+"/"+name, func(ctx context.Context) (*v1.ConfigMap, error) {
		m, err := o.client.ConfigMaps.Get(ctx, ns, name)
		return m, inEvents(err, "configmap", name)
	})
}

func (o *objects) Secret(ctx context.Context, ns, name string) (*v1.Secret, error) {
	return remember(ctx, o, "secret/"+ns+"/"+name, func(ctx context.Context) (*v1.Secret, error) {
		s, err := o.client.Secrets.Get(ctx, ns, name)
		return s, inEvents(err, "secret", name)
	})
}

// inEvents names what is not there as users read it in events and in what containers wait for: in the singular.
func inEvents(err error, kind, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(v1.Resource(kind), name)
	}
	return err
}

func (o *objects) RuntimeHandler(ctx context.Context, class string) (string, error) {
	return remember(ctx, o, "runtimeclass/"+class, func(ctx context.Context) (string, error) {
		rc, err := o.client.RuntimeClasses.Get(ctx, "", class)
		if err != nil {
			return "", err
		}
		return rc.Handler, nil
	})
}

func (o *objects) ServiceAccount(ctx context.Context, ns, name string) (*v1.ServiceAccount, error) {
	return remember(ctx, o, "serviceaccount/"+ns+"/"+name, func(ctx context.Context) (*v1.ServiceAccount, error) {
		return o.client.ServiceAccounts.Get(ctx, ns, name)
	})
}

func (o *objects) TrustBundle(ctx context.Context, name string) (*certv1.ClusterTrustBundle, error) {
	return remember(ctx, o, "trustbundle/"+name, func(ctx context.Context) (*certv1.ClusterTrustBundle, error) {
		return o.client.TrustBundles.Get(ctx, "", name)
	})
}

func (o *objects) TrustBundles(ctx context.Context, signer string) ([]certv1.ClusterTrustBundle, error) {
	return remember(ctx, o, "trustbundles/"+signer, func(ctx context.Context) ([]certv1.ClusterTrustBundle, error) {
		return o.client.TrustBundles.Of(ctx, signer)
	})
}

func (o *objects) RequestCertificate(ctx context.Context, r *certv1.PodCertificateRequest) (*certv1.PodCertificateRequest, error) {
	if o.client == nil {
		return nil, errStandalone
	}
	return o.client.PodCertificates.Create(ctx, r.Namespace, r)
}

func (o *objects) CertificateRequest(ctx context.Context, ns, name string) (*certv1.PodCertificateRequest, error) {
	if o.client == nil {
		return nil, errStandalone
	}
	return o.client.PodCertificates.Get(ctx, ns, name)
}

func (o *objects) Token(ctx context.Context, ns, account string, req *authv1.TokenRequest) (*authv1.TokenRequest, error) {
	if o.client == nil {
		return nil, errStandalone
	}
	return o.client.Tokens.Create(ctx, ns, req, account, "token")
}

func (o *objects) Claim(ctx context.Context, ns, name string, owner *v1.Pod) (*v1.PersistentVolumeClaim, *v1.PersistentVolume, error) {
	if o.client == nil {
		return nil, nil, errStandalone
	}
	pvc, err := o.client.Claims.Get(ctx, ns, name)
	if err != nil {
		return nil, nil, err
	}
	if owner != nil && !metav1.IsControlledBy(pvc, owner) {
		return nil, nil, fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", ns, name, owner.Namespace, owner.Name)
	}
	if pvc.Spec.VolumeName == "" || pvc.Status.Phase != v1.ClaimBound {
		return nil, nil, fmt.Errorf("PVC %s/%s is not bound", ns, name)
	}
	pv, err := o.client.Volumes.Get(ctx, "", pvc.Spec.VolumeName)
	if err != nil {
		return nil, nil, err
	}
	if r := pv.Spec.ClaimRef; r == nil || r.UID != pvc.UID {
		return nil, nil, fmt.Errorf("volume %s is not bound to claim %s/%s", pv.Name, ns, name)
	}
	return pvc, pv, nil
}

// Grown writes a claim's status after its volume was to grow on this node.
func (o *objects) Grown(ctx context.Context, pvc *v1.PersistentVolumeClaim, size resource.Quantity, infeasible bool) error {
	status := map[string]any{"allocatedResourceStatuses": map[string]any{"storage": v1.PersistentVolumeClaimNodeResizeInfeasible}}
	if !infeasible {
		var done []any
		for _, c := range pvc.Status.Conditions {
			switch c.Type {
			case v1.PersistentVolumeClaimResizing, v1.PersistentVolumeClaimFileSystemResizePending, v1.PersistentVolumeClaimNodeResizeError, v1.PersistentVolumeClaimControllerResizeError:
				done = append(done, map[string]any{"$patch": "delete", "type": c.Type})
			}
		}
		status = map[string]any{"capacity": map[string]any{"storage": size.String()}, "allocatedResourceStatuses": map[string]any{"storage": nil}}
		if done != nil {
			status["conditions"] = done
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pvc.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = o.client.Claims.Patch(ctx, pvc.Namespace, pvc.Name, types.StrategicMergePatchType, patch, "status")
	return err
}

// Driver is a volume driver's own object; nil when it has none.
func (o *objects) Driver(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	d, err := remember(ctx, o, "csidriver/"+name, func(ctx context.Context) (*storagev1.CSIDriver, error) {
		return o.client.CSIDrivers.Get(ctx, "", name)
	})
	if apierrors.IsNotFound(err) || errors.Is(err, errStandalone) {
		return nil, nil
	}
	return d, err
}

func (o *objects) Attachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error) {
	if o.client == nil {
		return nil, errStandalone
	}
	return o.client.VolumeAttachment.Get(ctx, "", name)
}

// Services are those of a namespace and the master's own; it waits for the first list, so that no container starts
// with half its variables.
func (o *objects) Services(ctx context.Context, ns string) ([]*v1.Service, error) {
	if o.client == nil {
		return nil, nil
	}
	if !o.synced() {
		deadline := time.Now().Add(5 * time.Second)
		for !o.synced() {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if time.Now().After(deadline) {
				return nil, errors.New("services have not yet been read at least once, cannot construct envvars")
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	var out []*v1.Service
	spaces := []string{ns}
	if ns != v1.NamespaceDefault {
		spaces = append(spaces, v1.NamespaceDefault)
	}
	for _, space := range spaces {
		items, err := o.services.ByIndex(cache.NamespaceIndex, space)
		if err != nil {
			return nil, err
		}
		for _, it := range items {
			out = append(out, it.(*v1.Service))
		}
	}
	return out, nil
}
