package engine

import (
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/codec"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// delete removes an object, or marks it for those who must finish first.
func (e *Engine) delete(c *call) error {
	opts, err := c.deleteOptions()
	if err != nil {
		return err
	}
	obj, gone, err := e.deleteOne(c, c.info.Name, opts)
	if err != nil {
		return err
	}
	if !gone {
		code := http.StatusOK
		if o := opts.OrphanDependents; o != nil && !*o {
			code = http.StatusAccepted
		}
		return c.sendHub(code, obj)
	}
	if c.def.ReturnDeleted {
		return c.sendHub(http.StatusOK, obj)
	}
	return c.sendObject(http.StatusOK, &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{
		Name: obj.GetName(), Group: c.info.GVR.Group, Kind: c.info.GVR.Resource, UID: obj.GetUID(),
	}}, schema.GroupVersionKind{Version: "v1", Kind: "Status"})
}

// deleteOptions reads the options from the body, or if there is none from the query.
func (c *call) deleteOptions() (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	body, err := c.body()
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		m, err := codec.BodyMedia(c.r)
		if err != nil {
			return nil, err
		}
		if err := codec.DecodeOptions(body, m, c.gvk().GroupVersion(), opts); err != nil {
			return nil, err
		}
	} else if err := metav1.Convert_url_Values_To_v1_DeleteOptions(ptr(c.values()), opts, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	opts.TypeMeta = optionsMeta("DeleteOptions")
	return opts, c.setWrite("DeleteOptions", opts.DryRun, "", metav1validation.ValidateDeleteOptions(opts))
}

// deleteOne deletes one object, again after each conflict. gone tells that it left the store.
func (e *Engine) deleteOne(c *call, name string, opts *metav1.DeleteOptions) (obj kind.Object, gone bool, err error) {
	c.name = name
	at, err := c.look(c.ctx, name, false)
	for try := 0; ; try++ {
		if err != nil {
			return nil, false, err
		}
		var again bool
		obj, gone, again, err = e.deleteOnce(c, at, opts, try > 0)
		if !again && try == 0 && isDecision(err) && e.stale(c, at) {
			again = true // decided on old news
		}
		if !again || try == writeTries {
			return obj, gone, err
		}
		at, err = c.look(c.ctx, name, true)
	}
}

func (e *Engine) deleteOnce(c *call, at *live, opts *metav1.DeleteOptions, fresh bool) (_ kind.Object, gone, again bool, err error) {
	if err := c.preconditions(at.obj, opts.Preconditions); err != nil {
		return nil, false, false, err
	}
	op := c.op()
	if c.def.DeleteCheck != nil {
		if err := c.def.DeleteCheck(op, at.obj); err != nil {
			return nil, false, false, err
		}
	}
	req := c.admit(admission.Delete, nil, at.obj, opts)
	if err := e.plugins.Mutate(c.ctx, req); err != nil {
		return nil, false, false, err
	}
	if err := e.plugins.Validate(c.ctx, req); err != nil {
		return nil, false, false, err
	}
	obj := at.obj.DeepCopyObject().(kind.Object)
	c.mark(op, obj, opts)
	if c.free(obj) {
		obj, again, err = e.remove(c, at, obj, fresh)
		return obj, err == nil, again, err
	}
	obj, again, err = e.put(c, at, obj, fresh)
	return obj, false, again, err
}

func (c *call) preconditions(obj kind.Object, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	gr := schema.GroupResource{Group: c.info.GVR.Group, Resource: c.gvk().Kind}
	if p.UID != nil && *p.UID != obj.GetUID() {
		return apierrors.NewConflict(gr, obj.GetName(), fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, obj.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(gr, obj.GetName(), fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, obj.GetResourceVersion()))
	}
	return nil
}

// mark sets on obj what a deletion request asks: when it is to be gone, and who must finish before.
func (c *call) mark(op *kind.Op, obj kind.Object, opts *metav1.DeleteOptions) {
	m := metaOf(obj)
	if had := m.DeletionGracePeriodSeconds; m.DeletionTimestamp != nil && c.def.Grace != nil && had != nil && *had > 0 {
		shorten(m, opts.GracePeriodSeconds) // who ends it is at work: nothing else can be changed any more
		return
	}
	m.Finalizers = c.finalizers(m.Finalizers, opts)
	if m.DeletionTimestamp != nil {
		return
	}
	grace := int64(0)
	if c.def.Grace != nil {
		grace = c.def.Grace(op, obj, opts.GracePeriodSeconds)
	}
	m.DeletionTimestamp = ptr(metav1.NewTime(c.now.Truncate(1e9).Add(secs(grace))))
	m.DeletionGracePeriodSeconds = &grace
	if m.Generation > 0 {
		m.Generation++
	}
	if c.def.OnDelete != nil {
		c.def.OnDelete(op, obj)
	}
}

// shorten sets the grace of an object that is being deleted to what is asked, if that is less.
func shorten(m *metav1.ObjectMeta, asked *int64) {
	had := *m.DeletionGracePeriodSeconds
	if asked == nil {
		return
	}
	grace := *asked
	if grace < 0 {
		grace = 1
	}
	if grace < had {
		m.DeletionTimestamp = ptr(metav1.NewTime(m.DeletionTimestamp.Add(-secs(had)).Add(secs(grace))))
		m.DeletionGracePeriodSeconds = &grace
	}
}

// finalizers answers who must finish, given how dependents are to be treated.
func (c *call) finalizers(have []string, opts *metav1.DeleteOptions) []string {
	policy := c.def.Propagation
	switch {
	case opts.PropagationPolicy != nil:
		policy = *opts.PropagationPolicy
	case opts.OrphanDependents != nil:
		policy = metav1.DeletePropagationBackground
		if *opts.OrphanDependents {
			policy = metav1.DeletePropagationOrphan
		}
	case slices.Contains(have, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(have, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	out := slices.DeleteFunc(slices.Clone(have), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	switch policy {
	case metav1.DeletePropagationOrphan:
		out = append(out, metav1.FinalizerOrphanDependents)
	case metav1.DeletePropagationForeground:
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	return out
}
