// Package garbage deletes objects whose owners are gone, and lets owners wait for, or leave behind, what they own.
//
// The flow: discovery says which resources there are; a metadata informer for each feeds a graph of who owns whom; a
// change brings the keys (UIDs) of those it concerns; decide says what becomes of one object. An owner that the graph
// does not know is looked for at the apiserver before anything is deleted on its account.
//
// The graph is guarded by its own lock; nodes in it are replaced, never changed. Nothing is decided until every informer
// has been filled once.
package garbage

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

const (
	// rediscover is how often new resources are looked for.
	rediscover = 30 * time.Second
	// notYet is how soon an object is looked at again while the graph is being filled, or until it knows its owners.
	notYet = 500 * time.Millisecond
	// fillLimit is how long what owns others waits for a new informer to be filled: a resource that cannot be listed may never be.
	fillLimit = 30 * time.Second
)

type collector struct {
	shared owners
	runtime.Deps
	objects metadata.Interface
	pods    cache.SharedIndexInformer
	graph   *graph
	filled  atomic.Bool
	enqueue atomic.Pointer[func(runtime.Key)]

	mu      sync.Mutex
	kinds   map[schema.GroupKind]known // where a kind is served
	watched map[schema.GroupVersionResource]*watched
}

// known is how a kind is reached.
type known struct {
	gvr        schema.GroupVersionResource
	namespaced bool
}

type watched struct {
	told  cache.InformerSynced // whether the graph has all that was there at first
	since time.Time
	stop  context.CancelFunc
}

// New answers the controller; objects reads and writes objects of any kind by their metadata.
func New(d runtime.Deps, objects metadata.Interface) *runtime.Controller {
	c := &collector{Deps: d, objects: objects, pods: d.Informers.Core().V1().Pods().Informer(), graph: newGraph(), kinds: map[schema.GroupKind]known{}, watched: map[schema.GroupVersionResource]*watched{}}
	return &runtime.Controller{
		Name: "garbage-collector-controller", Account: "generic-garbage-collector", Queue: "garbage_collector_attempt_to_delete", For: "objects go when their owners do", Workers: 20,
		Writes: []string{"*"}, Start: c.follow, Reconcile: c.reconcile,
	}
}

// pods are so many, and in a cache already, that the graph is fed from there.
var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// ignored are resources that own and are owned by nobody, and come in great numbers.
var ignored = []string{"events"}

// follow keeps an informer for every resource that discovery knows.
func (c *collector) follow(ctx context.Context, enqueue func(runtime.Key)) {
	c.enqueue.Store(&enqueue)
	tick := time.NewTicker(rediscover)
	defer tick.Stop()
	for {
		if err := c.discover(ctx); err != nil {
			slog.Warn("garbage collection does not know every resource", "err", err)
		}
		if !c.filled.Load() && c.wait(ctx) {
			c.filled.Store(true)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// wait returns when every informer has been filled, or ctx ended.
func (c *collector) wait(ctx context.Context) bool {
	c.mu.Lock()
	var synced []cache.InformerSynced
	for _, w := range c.watched {
		synced = append(synced, w.told)
	}
	c.mu.Unlock()
	return len(synced) > 0 && cache.WaitForCacheSync(ctx.Done(), synced...)
}

func (c *collector) discover(ctx context.Context) error {
	lists, err := c.Client.Discovery().ServerPreferredResources()
	found := map[schema.GroupVersionResource]bool{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range lists {
		gv, perr := schema.ParseGroupVersion(l.GroupVersion)
		if perr != nil {
			continue
		}
		for _, r := range l.APIResources {
			gvr := gv.WithResource(r.Name)
			c.kinds[schema.GroupKind{Group: gv.Group, Kind: r.Kind}] = known{gvr, r.Namespaced}
			if slices.Contains(ignored, r.Name) || !(discovery.SupportsAllVerbs{Verbs: []string{"list", "watch", "delete"}}).Match(l.GroupVersion, &r) {
				continue
			}
			found[gvr] = true
			if c.watched[gvr] == nil {
				c.watched[gvr] = c.watch(ctx, gvr)
			}
		}
	}
	if err != nil {
		return err // a group that does not answer now is not one that is gone
	}
	for gvr, w := range c.watched {
		if !found[gvr] {
			w.stop()
			delete(c.watched, gvr)
		}
	}
	return nil
}

// watch follows one resource.
func (c *collector) watch(ctx context.Context, gvr schema.GroupVersionResource) *watched {
	ctx, stop := context.WithCancel(ctx)
	see := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { c.seen(gvr, obj) },
		UpdateFunc: func(_, obj any) { c.seen(gvr, obj) },
		DeleteFunc: c.lost,
	}
	if gvr == pods {
		if told, err := c.pods.AddEventHandler(see); err == nil { // it fails where the informer has ended, and so has this
			return &watched{told.HasSynced, time.Now(), func() { stop(); _ = c.pods.RemoveEventHandler(told) }}
		}
	}
	i := metadatainformer.NewFilteredMetadataInformer(c.objects, gvr, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	// It has not been started, so neither call can fail.
	_ = i.SetTransform(c.shared.slim)
	told, _ := i.AddEventHandler(see)
	go i.RunWithContext(ctx)
	return &watched{told.HasSynced, time.Now(), stop}
}

// filling tells whether an informer is new enough for its objects to be on their way into the graph.
func (c *collector) filling() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watched {
		if time.Since(w.since) < fillLimit && !w.told() {
			return true
		}
	}
	return false
}

func (c *collector) add(uid types.UID) {
	if f := c.enqueue.Load(); f != nil {
		(*f)(runtime.Key{Name: string(uid)})
	}
}

// seen puts an object into the graph and asks for a decision where it may matter.
func (c *collector) seen(gvr schema.GroupVersionResource, obj any) {
	m, ok := obj.(metav1.Object)
	if !ok {
		return
	}
	n := &Node{
		GVR: gvr, Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUID(), Owners: m.GetOwnerReferences(), Finalizers: m.GetFinalizers(), Deleting: m.GetDeletionTimestamp() != nil,
	}
	before := c.graph.put(n)
	if before == nil && !c.sound(n) || before != nil && len(n.Owners) > 0 && !slices.EqualFunc(before.Owners, n.Owners, func(a, b metav1.OwnerReference) bool { return a.UID == b.UID }) {
		c.add(n.UID)
	}
	if before != nil {
		for _, uid := range let(before.Owners, n.Owners) {
			if o := c.graph.get(uid); o != nil && o.Deleting {
				c.add(uid)
			}
		}
	}
	if n.Deleting && (n.has(metav1.FinalizerDeleteDependents) || n.has(metav1.FinalizerOrphanDependents)) {
		c.add(n.UID)
		for _, d := range c.graph.of(n.UID) {
			c.add(d.UID)
		}
	}
}

// sound tells that all owners of a node in the graph stand, as nearly every new object's do: there is nothing to decide until one of
// them changes, which brings the key.
func (c *collector) sound(n *Node) bool {
	return !slices.ContainsFunc(n.Owners, func(ref metav1.OwnerReference) bool {
		at, astray := c.standing(n, ref)
		return at != Solid || astray
	})
}

// let answers the owners that an object no longer has, or no longer holds up.
func let(before, now []metav1.OwnerReference) []types.UID {
	var free []types.UID
	for _, b := range before {
		if !slices.ContainsFunc(now, func(r metav1.OwnerReference) bool { return r.UID == b.UID && blocks(r) == blocks(b) }) {
			free = append(free, b.UID)
		}
	}
	return free
}

// lost takes an object out of the graph: its dependents are decided about, and an owner that waits for it.
func (c *collector) lost(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	m, ok := obj.(metav1.Object)
	if !ok {
		return
	}
	n := c.graph.drop(m.GetUID())
	for _, d := range c.graph.of(m.GetUID()) {
		c.add(d.UID)
	}
	if n == nil {
		return
	}
	for _, o := range n.Owners {
		c.add(o.UID)
	}
}

func (c *collector) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	if !c.filled.Load() {
		return notYet, nil
	}
	n := c.graph.get(types.UID(key.Name))
	if n == nil {
		return 0, nil
	}
	if n.Deleting && c.filling() { // what it owns may be among what is still to come
		return notYet, nil
	}
	s := Snapshot{Object: n, Dependents: c.graph.of(n.UID), Owners: map[types.UID]Standing{}}
	for _, ref := range n.Owners {
		at, astray := c.standing(n, ref)
		s.Owners[ref.UID] = at
		if astray {
			c.astray(n, ref)
		}
	}
	p := decide(s)
	var again time.Duration
	if len(p.Look) > 0 {
		for _, ref := range p.Look {
			there, err := c.exists(ctx, n, ref)
			if err != nil {
				return 0, err
			}
			if there { // its end may never be told: an owner that came and went while its informer was away was in no list
				s.Owners[ref.UID], again = Solid, notYet
				if !c.follows(ref) {
					again = rediscover
				}
			} else { // what one object says of an owner's name proves nothing to others: it is not remembered
				s.Owners[ref.UID] = Gone
			}
		}
		p = decide(s)
	}
	if text := p.String(); text != "" {
		slog.Debug("garbage", "object", n.GVR.Resource+" "+n.Namespace+"/"+n.Name, "plan", text)
	}
	return again, c.apply(ctx, n, p)
}

// standing answers what the graph knows of an owner, and whether it is one that an object cannot have: a namespaced one of
// another namespace is taken for gone, one of an object without namespace for solid, so that no such object is deleted for
// what somebody in a namespace did.
func (c *collector) standing(n *Node, ref metav1.OwnerReference) (at Standing, astray bool) {
	o := c.graph.get(ref.UID)
	switch {
	case n.Namespace == "" && (o != nil && o.Namespace != "" || o == nil && c.namespaced(ref)):
		return Solid, true
	case o != nil && o.Namespace != "" && o.Namespace != n.Namespace:
		return Gone, true
	case o != nil && o.Name != ref.Name:
		return Unknown, false // there is no such owner, unless the graph is wrong
	case o != nil && o.Deleting && o.has(metav1.FinalizerDeleteDependents):
		return Waiting, false
	case o != nil:
		return Solid, false
	case c.graph.isGone(ref.UID):
		return Gone, false
	}
	return Unknown, false
}

// follows tells whether the graph will know an owner once its informer has caught up.
func (c *collector) follows(ref metav1.OwnerReference) bool {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watched[c.kinds[schema.GroupKind{Group: gv.Group, Kind: ref.Kind}].gvr] != nil
}

// namespaced tells whether an owner is of a kind that stands in namespaces, as far as is known.
func (c *collector) namespaced(ref metav1.OwnerReference) bool {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kinds[schema.GroupKind{Group: gv.Group, Kind: ref.Kind}].namespaced
}

// astray tells users of an owner that an object cannot have.
func (c *collector) astray(n *Node, ref metav1.OwnerReference) {
	kind := schema.GroupVersionKind{Version: n.GVR.Version, Group: n.GVR.Group}
	c.mu.Lock()
	for gk, k := range c.kinds {
		if k.gvr == n.GVR {
			kind = gk.WithVersion(n.GVR.Version)
		}
	}
	c.mu.Unlock()
	o := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name, UID: n.UID}}
	o.SetGroupVersionKind(kind)
	c.Event(o, runtime.Warning, "OwnerRefInvalidNamespace", fmt.Sprintf("ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q", ref.APIVersion, ref.Kind, n.Namespace, ref.Name, ref.UID, n.Namespace))
}

// exists looks for an owner at the apiserver.
func (c *collector) exists(ctx context.Context, n *Node, ref metav1.OwnerReference) (bool, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return false, nil //nolint:nilerr // what cannot be named cannot be there
	}
	c.mu.Lock()
	k, ok := c.kinds[schema.GroupKind{Group: gv.Group, Kind: ref.Kind}]
	c.mu.Unlock()
	if !ok {
		return false, fmt.Errorf("the owner %s %s of %s is of a kind that is not served; its dependents stay until it is", ref.Kind, ref.Name, n.Name)
	}
	in := metadata.ResourceInterface(c.objects.Resource(k.gvr))
	if k.namespaced {
		in = c.objects.Resource(k.gvr).Namespace(n.Namespace)
	}
	o, err := in.Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return o.UID == ref.UID, nil
}

func (c *collector) in(n *Node) metadata.ResourceInterface {
	if n.Namespace == "" {
		return c.objects.Resource(n.GVR)
	}
	return c.objects.Resource(n.GVR).Namespace(n.Namespace)
}

func (c *collector) apply(ctx context.Context, n *Node, p Plan) error {
	for _, d := range p.Release {
		if err := c.dropOwners(ctx, d, []types.UID{n.UID}); err != nil {
			return err
		}
	}
	for _, d := range p.Poke {
		c.add(d.UID)
	}
	if len(p.Drop) > 0 {
		if err := c.dropOwners(ctx, n, p.Drop); err != nil {
			return err
		}
	}
	if p.Unfinish != "" {
		if err := c.unfinish(ctx, n, p.Unfinish); err != nil {
			return err
		}
	}
	if p.Unblock {
		if err := c.unblock(ctx, n); err != nil {
			return err
		}
	}
	if p.Delete == "" {
		return nil
	}
	// What stands there now decides, not what the graph believed: its owners may have changed.
	live, err := c.in(n).Get(ctx, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && live.UID != n.UID {
		return nil
	}
	if err != nil {
		return err
	}
	if !slices.EqualFunc(live.OwnerReferences, n.Owners, func(a, b metav1.OwnerReference) bool { return a.UID == b.UID }) {
		return nil // the change is on its way into the graph and brings the key again
	}
	err = c.in(n).Delete(ctx, n.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &n.UID, ResourceVersion: &live.ResourceVersion}, PropagationPolicy: &p.Delete,
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// dropOwners takes owner references off an object.
func (c *collector) dropOwners(ctx context.Context, n *Node, owners []types.UID) error {
	return c.patch(ctx, n, func(live *metav1.PartialObjectMetadata) map[string]any {
		left := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(r metav1.OwnerReference) bool { return slices.Contains(owners, r.UID) })
		if len(left) == len(live.OwnerReferences) {
			return nil
		}
		return map[string]any{"ownerReferences": left}
	})
}

// unblock lets an object's owners go before it.
func (c *collector) unblock(ctx context.Context, n *Node) error {
	return c.patch(ctx, n, func(live *metav1.PartialObjectMetadata) map[string]any {
		owners, changed := slices.Clone(live.OwnerReferences), false
		for i := range owners {
			if owners[i].BlockOwnerDeletion != nil && *owners[i].BlockOwnerDeletion {
				free := false
				owners[i].BlockOwnerDeletion, changed = &free, true
			}
		}
		if !changed {
			return nil
		}
		return map[string]any{"ownerReferences": owners}
	})
}

// unfinish takes a finalizer off an object.
func (c *collector) unfinish(ctx context.Context, n *Node, finalizer string) error {
	return c.patch(ctx, n, func(live *metav1.PartialObjectMetadata) map[string]any {
		left := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == finalizer })
		if len(left) == len(live.Finalizers) {
			return nil
		}
		return map[string]any{"finalizers": left}
	})
}

// patch changes an object's metadata as it is now.
func (c *collector) patch(ctx context.Context, n *Node, change func(*metav1.PartialObjectMetadata) map[string]any) error {
	live, err := c.in(n).Get(ctx, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && live.UID != n.UID {
		return nil
	}
	if err != nil {
		return err
	}
	fields := change(live)
	if fields == nil {
		return nil
	}
	fields["uid"], fields["resourceVersion"] = live.UID, live.ResourceVersion
	body, err := json.Marshal(map[string]any{"metadata": fields})
	if err != nil {
		return err
	}
	_, err = c.in(n).Patch(ctx, n.Name, types.MergePatchType, body, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
