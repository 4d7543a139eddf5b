// Package revision keeps the history of templates of controllers that make pods themselves: daemon and stateful sets.
//
// A template is stored as a ControllerRevision that its set owns, named after the template's hash, which the pods made
// from it carry as a label. Ensure is called by one worker per set; it keeps no state.
package revision

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// History is a set's revisions, oldest first.
type History struct {
	All     []*appsv1.ControllerRevision
	Current *appsv1.ControllerRevision
}

// Hash is what the pods of a revision are labelled with.
func Hash(r *appsv1.ControllerRevision) string {
	return r.Labels[appsv1.ControllerRevisionHashLabelKey]
}

// Ensure answers the history, with the current template as its newest revision.
func Ensure(ctx context.Context, d runtime.Deps, owner metav1.Object, kind schema.GroupVersionKind, t *corev1.PodTemplateSpec, have runtime.Children[appsv1.ControllerRevision]) (*History, error) {
	data, err := content(t)
	if err != nil {
		return nil, err
	}
	h := &History{All: have.Of(owner.GetUID())}
	slices.SortFunc(h.All, func(a, b *appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
	newest := int64(0)
	for _, r := range h.All {
		newest = max(newest, r.Revision)
		if same(r.Data.Raw, data) {
			h.Current = r
		}
	}
	client := d.Client.AppsV1().ControllerRevisions(owner.GetNamespace())
	if h.Current != nil {
		if h.Current.Revision == newest {
			return h, nil
		}
		// An old template is the current one again: it becomes the newest revision.
		next := h.Current.DeepCopy()
		next.Revision = newest + 1
		h.Current, err = client.Update(ctx, next, metav1.UpdateOptions{})
		return h, err
	}
	f := fnv.New32a()
	_, _ = f.Write(data) // a hash takes everything
	hash := rand.SafeEncodeString(fmt.Sprint(f.Sum32()))
	labels := map[string]string{appsv1.ControllerRevisionHashLabelKey: hash}
	for k, v := range t.Labels {
		labels[k] = v
	}
	want := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: owner.GetName() + "-" + hash, Namespace: owner.GetNamespace(), Labels: labels,
			OwnerReferences: []metav1.OwnerReference{runtime.OwnedBy(owner, kind)},
		},
		Data: apiruntime.RawExtension{Raw: data}, Revision: newest + 1,
	}
	h.Current, err = client.Create(ctx, want, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		h.Current, err = client.Get(ctx, want.Name, metav1.GetOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("storing the template's revision: %w", err)
	}
	h.All = append(h.All, h.Current)
	return h, nil
}

// Trim forgets the oldest revisions beyond the limit that no pod is made from.
func Trim(ctx context.Context, d runtime.Deps, h *History, limit *int32, used map[string]bool) error {
	if limit == nil {
		return nil
	}
	old := slices.DeleteFunc(slices.Clone(h.All), func(r *appsv1.ControllerRevision) bool { return r.Name == h.Current.Name || used[Hash(r)] })
	for _, r := range old[:max(0, len(old)-int(*limit))] {
		err := d.Client.AppsV1().ControllerRevisions(r.Namespace).Delete(ctx, r.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// content is a template as a patch that puts it back.
func content(t *corev1.PodTemplateSpec) ([]byte, error) {
	raw, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	m["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": m}})
}

// same compares two contents whatever the order of their fields.
func same(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b)
	}
	ca, _ := json.Marshal(x)
	cb, _ := json.Marshal(y)
	return bytes.Equal(ca, cb)
}
