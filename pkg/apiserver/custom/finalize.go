package custom

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// finalizer holds a definition until its objects are gone.
const finalizer = apiextensionsv1.CustomResourceCleanupFinalizer

// finalize deletes a definition's objects beside Run, once for each definition. One of the same name may come and go while the work
// for the last is being put away.
func (r *Room) finalize(ctx context.Context, wg *sync.WaitGroup, crd *apiextensionsv1.CustomResourceDefinition) {
	if !apihelpers.CRDHasFinalizer(crd, finalizer) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending[crd.UID] {
		return
	}
	r.ending[crd.UID] = true
	wg.Go(func() {
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.ending, crd.UID)
		}()
		gr := schema.GroupResource{Group: crd.Spec.Group, Resource: crd.Status.AcceptedNames.Plural}
		for wait := 20 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			done, err := r.empty(ctx, gr)
			if err != nil && ctx.Err() == nil {
				slog.Error("the objects of a custom resource definition cannot be deleted yet", "name", crd.Name, "err", err)
			}
			if done {
				if err = r.release(ctx, crd); err == nil {
					return
				}
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
	})
}

// empty deletes every object of a resource and tells whether none is left.
func (r *Room) empty(ctx context.Context, gr schema.GroupResource) (bool, error) {
	res := r.c.Cache.Resource(gr)
	if res == nil {
		return true, nil // never served
	}
	if _, err := res.Home().Fresh(ctx); err != nil {
		return false, err
	}
	objs, err := r.c.Env.List(ctx, gr, "")
	if err != nil || len(objs) == 0 {
		return err == nil, err
	}
	var failed error
	for _, o := range objs {
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		if err := r.c.Env.Delete(ctx, gr, o.GetNamespace(), o.GetName(), &metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			failed = err
		}
	}
	return false, failed
}

// release takes the finalizer off, by which the definition goes.
func (r *Room) release(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) error {
	_, err := r.c.Env.Mutate(ctx, definitions, "", crd.Name, func(o kind.Object) error {
		c := o.(*apiextensionsv1.CustomResourceDefinition)
		if c.UID != crd.UID {
			return apierrors.NewNotFound(definitions, crd.Name)
		}
		c.Finalizers = slices.DeleteFunc(c.Finalizers, func(f string) bool { return f == finalizer })
		apihelpers.SetCRDCondition(c, apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionFalse, Reason: "InstanceDeletionCompleted", Message: "removed all instances",
		})
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
