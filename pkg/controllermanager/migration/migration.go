// Package migration has stored objects written again, so that they lie in etcd as the apiserver writes them now: in another
// version, or encrypted by another key.
//
// A migration brings its key; decide says which step is next. The objects are listed in pages, as metadata, and each that
// is older than the migration gets a patch that changes nothing. No state is kept: who takes over lists anew, and what was
// written meanwhile is passed by.
package migration

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// page is how many objects are listed at once.
const page = 500

type controller struct {
	runtime.Deps
	objects metadata.Interface
}

// New answers the controller; objects lists and patches what is migrated.
func New(d runtime.Deps, objects metadata.Interface) *runtime.Controller {
	c := &controller{d, objects}
	migrations := d.Informers.Storagemigration().V1().StorageVersionMigrations()
	return &runtime.Controller{
		Name: "storage-version-migrator-controller", Account: "storage-version-migrator-controller", Queue: "storage_version_migrator", For: "objects stored anew, as they are stored now", Workers: 1,
		Watches: []runtime.Watch{{What: "storageversionmigrations", Informer: migrations.Informer(), Keys: runtime.Self}},
		Writes:  []string{"storageversionmigrations/status", "everything that is to be migrated"},
		Reconcile: func(ctx context.Context, k runtime.Key) (time.Duration, error) {
			m, err := migrations.Lister().Get(k.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			s := Snapshot{Migration: m, Now: time.Now()}
			if ended(m) {
				return 0, nil
			}
			r, served, err := runtime.Preferred(d.Client.Discovery(), schema.GroupResource(m.Spec.Resource))
			if err != nil {
				return 0, err
			}
			if served {
				// The version of a list is that of all of etcd: what is younger was stored as it should be.
				list, err := objects.Resource(r).List(ctx, metav1.ListOptions{Limit: 1})
				if err != nil && !apierrors.IsNotFound(err) {
					return 0, fmt.Errorf("listing %s: %w", r.GroupResource(), err)
				}
				if served = err == nil; served {
					s.Version = list.ResourceVersion
				}
			}
			s.Served = served
			p := decide(s)
			if p.Write {
				if err := c.write(ctx, r, m.Status.ResourceVersion); err != nil {
					return 0, err
				}
				s.Done = true
				p = decide(s)
			}
			if p.Status == nil {
				return 0, nil
			}
			next := m.DeepCopy()
			next.Status = *p.Status
			_, err = d.Client.StoragemigrationV1().StorageVersionMigrations().UpdateStatus(ctx, next, metav1.UpdateOptions{})
			return 0, err
		},
	}
}

// failures is how many objects in a row may fail before the rest is left for the next try.
const failures = 20

// write has every object of a resource written again that was last written before a version. An object that fails holds up no other:
// one that was written as it lay keeps its version, so the next try begins with all of them again, and would get no further.
func (c *controller) write(ctx context.Context, r schema.GroupVersionResource, before string) error {
	in := c.objects.Resource(r)
	opts := metav1.ListOptions{Limit: page}
	var failed error
	row := 0
	for {
		list, err := in.List(ctx, opts)
		if apierrors.IsResourceExpired(err) { // the pages were too long in coming: what is written already is passed by
			opts.Continue = ""
			continue
		}
		if err != nil {
			return fmt.Errorf("listing %s: %w", r.GroupResource(), err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if since(o.ResourceVersion, before) {
				continue
			}
			// The very object and version that was listed: whoever changes it meanwhile has migrated it.
			same, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.UID, "resourceVersion": o.ResourceVersion}})
			if err != nil {
				return err
			}
			_, err = in.Namespace(o.Namespace).Patch(ctx, o.Name, types.MergePatchType, same, metav1.PatchOptions{})
			if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				row = 0
				continue
			}
			failed = fmt.Errorf("writing %s %s/%s again: %w", r.GroupResource(), o.Namespace, o.Name, err)
			if row++; row >= failures || ctx.Err() != nil {
				return failed
			}
		}
		if opts.Continue = list.Continue; opts.Continue == "" {
			return failed
		}
	}
}
