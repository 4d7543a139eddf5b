// Package attachdetach attaches the volumes of CSI drivers to the nodes where pods want them, and detaches them when their
// node has let go.
//
// The flow: pods, claims, volumes and attachments bring the key of their node; decide says what the node gets and gives
// back; the node's status is written before an attachment is deleted, so that no kubelet mounts what is about to go. One
// worker runs, and what it wrote counts before the cache shows it, so that of two nodes only one gets a volume for one.
package attachdetach

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// Config is how patient the controller is.
type Config struct {
	NoForce bool          // never detach what a silent node may still use
	Resync  time.Duration // how often every node is looked at besides events, 0 = never
}

const (
	lag      = 100 * time.Millisecond // how long to wait for a cache that is behind
	patience = 5 * time.Minute        // how long what was written counts without the cache showing it
)

type controller struct {
	runtime.Deps
	Config
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	nodes   corelisters.NodeLister
	drivers storagelisters.CSIDriverLister

	podsOn, podsOf func(string) []*corev1.Pod                 // by node, by claim
	on, of         func(string) []*storagev1.VolumeAttachment // by node, by volume
	written        runtime.Written                            // nodes

	mu   sync.Mutex
	made map[string]made                 // attachments that the cache has not shown, by name
	idle map[string]map[string]time.Time // by node and attachment: since when nobody wants it
	told map[string]map[string]bool      // by node: what was said already
}

// made is an attachment that was created.
type made struct {
	node, pv string
	at       time.Time
}

// New answers the controller. Keys are nodes.
func New(d runtime.Deps, conf Config) *runtime.Controller {
	core, storage := d.Informers.Core().V1(), d.Informers.Storage().V1()
	attachments := storage.VolumeAttachments().Informer()
	c := &controller{
		Deps: d, Config: conf, claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), nodes: core.Nodes().Lister(), drivers: storage.CSIDrivers().Lister(),
		podsOn: runtime.PodsByNode(d), podsOf: runtime.PodsByClaim(d), made: map[string]made{}, idle: map[string]map[string]time.Time{}, told: map[string]map[string]bool{},
		on: runtime.By(attachments, "node", func(a *storagev1.VolumeAttachment) []string { return []string{a.Spec.NodeName} }),
		of: runtime.By(attachments, "volume", func(a *storagev1.VolumeAttachment) []string {
			if a.Spec.Source.PersistentVolumeName == nil {
				return nil
			}
			return []string{*a.Spec.Source.PersistentVolumeName}
		}),
	}
	return &runtime.Controller{
		Name: "persistentvolume-attach-detach-controller", Account: "attachdetach-controller", Queue: "pvcs", For: "volumes of CSI drivers on the nodes that want them",
		Watches: []runtime.Watch{
			{What: "pods", Informer: core.Pods().Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
				p := obj.(*corev1.Pod)
				if p.Spec.NodeName == "" || len(runtime.ClaimsOf(p)) == 0 {
					return nil
				}
				return []runtime.Key{{Name: p.Spec.NodeName}}
			}},
			{What: "persistentvolumeclaims", Informer: core.PersistentVolumeClaims().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				return c.users(obj.GetNamespace() + "/" + obj.GetName())
			}},
			{What: "persistentvolumes", Informer: core.PersistentVolumes().Informer(), Keys: func(_, obj metav1.Object) []runtime.Key {
				return c.usersOf(obj.(*corev1.PersistentVolume))
			}},
			{What: "nodes", Informer: core.Nodes().Informer(), Keys: runtime.Self},
			{What: "volumeattachments", Informer: attachments, Born: c.shown, Keys: c.attached},
			{What: "csidrivers", Informer: storage.CSIDrivers().Informer(), Keys: func(metav1.Object, metav1.Object) []runtime.Key { return c.all() }},
		},
		Writes: []string{"volumeattachments", "nodes/status"}, Workers: 1, Start: c.again, Reconcile: c.reconcile,
	}
}

// again looks at every node from time to time.
func (c *controller) again(ctx context.Context, enqueue func(runtime.Key)) {
	if c.Resync <= 0 {
		return
	}
	tick := time.NewTicker(c.Resync)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, k := range c.all() {
			enqueue(k)
		}
	}
}

func (c *controller) all() (keys []runtime.Key) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return nil // a lister of everything does not fail
	}
	for _, n := range nodes {
		keys = append(keys, runtime.KeyOf(n))
	}
	return keys
}

// users answers the nodes of the pods that use a claim.
func (c *controller) users(claim string) (keys []runtime.Key) {
	for _, p := range c.podsOf(claim) {
		if p.Spec.NodeName != "" {
			keys = append(keys, runtime.Key{Name: p.Spec.NodeName})
		}
	}
	return keys
}

func (c *controller) usersOf(v *corev1.PersistentVolume) []runtime.Key {
	if v.Spec.CSI == nil || v.Spec.ClaimRef == nil {
		return nil
	}
	return c.users(v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name)
}

// attached answers the node of an attachment, and the nodes that wait for the volume.
func (c *controller) attached(_, obj metav1.Object) []runtime.Key {
	a := obj.(*storagev1.VolumeAttachment)
	keys := []runtime.Key{{Name: a.Spec.NodeName}}
	if name := a.Spec.Source.PersistentVolumeName; name != nil {
		if v, err := c.volumes.Get(*name); err == nil {
			keys = append(keys, c.usersOf(v)...)
		}
	}
	return keys
}

// shown notes that the cache shows an attachment.
func (c *controller) shown(obj metav1.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.made, obj.GetName())
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	n, err := c.nodes.Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	if err != nil {
		n = nil
		c.written.Forget(key)
	} else if c.written.Behind(n) {
		return lag, nil
	}
	s := Snapshot{Name: key.Name, Node: n, Now: time.Now(), NoForce: c.NoForce}
	if s.Wants, err = c.wants(key.Name, n, s.Now); err != nil {
		return 0, err
	}
	s.Haves = c.haves(key.Name, s.Wants, s.Now)
	p := decide(s)
	if len(p.Detach) > 0 && n != nil {
		// A cache that is behind may not show what the node uses since: what is taken off it is decided on the node as it is.
		n, err = c.Client.CoreV1().Nodes().Get(ctx, key.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			n, err = nil, nil
		}
		if err != nil {
			return 0, fmt.Errorf("asking what the node uses: %w", err)
		}
		s.Node = n
		p = decide(s)
	}
	return p.Again, c.apply(ctx, n, key, p)
}

// wants answers the volumes that the pods of a node are for, each once. What is made already and not shown is left out.
func (c *controller) wants(node string, n *corev1.Node, now time.Time) ([]Want, error) {
	by := map[string]int{}
	var out []Want
	for _, p := range c.podsOn(node) {
		if !uses(p, n) {
			continue
		}
		for _, name := range runtime.ClaimsOf(p) {
			claim, err := c.claims.PersistentVolumeClaims(p.Namespace).Get(name)
			if err != nil || claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound {
				continue // its binding brings this node again
			}
			pv, err := c.volumes.Get(claim.Spec.VolumeName)
			if err != nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
				continue
			}
			v, ok := volumeOf(pv, c.needs)
			if !ok {
				continue
			}
			if i, ok := by[v.PV]; ok {
				out[i].Pods = append(out[i].Pods, p)
				continue
			}
			w := Want{Volume: v, Pods: []*corev1.Pod{p}, Nodes: c.holders(v.PV, node, now)}
			for _, o := range c.podsOf(p.Namespace + "/" + name) {
				if o.Spec.NodeName != "" && o.Spec.NodeName != node {
					w.Others = append(w.Others, o.Name)
				}
			}
			by[v.PV] = len(out)
			out = append(out, w)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := out[:0]
	for _, w := range out {
		if m, ok := c.made[w.attachment(node)]; !ok || now.Sub(m.at) > patience {
			kept = append(kept, w)
		}
	}
	return kept, nil
}

// needs tells whether volumes of a driver are attached; they are, unless it says otherwise.
func (c *controller) needs(driver string) bool {
	d, err := c.drivers.Get(driver)
	return err != nil || d.Spec.AttachRequired == nil || *d.Spec.AttachRequired
}

// holders answers the other nodes that have a volume or are getting it.
func (c *controller) holders(pv, node string, now time.Time) (out []string) {
	for _, a := range c.of(pv) {
		if a.Spec.NodeName != node {
			out = append(out, a.Spec.NodeName)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.made {
		if m.pv == pv && m.node != node && now.Sub(m.at) <= patience {
			out = append(out, m.node)
		}
	}
	return out
}

// haves answers the attachments of a node that are named as ours are: others are somebody else's.
func (c *controller) haves(node string, wants []Want, now time.Time) (out []Have) {
	wanted := map[string]bool{}
	for _, w := range wants {
		wanted[w.attachment(node)] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before, next := c.idle[node], map[string]time.Time{}
	for _, a := range c.on(node) {
		if a.Spec.Source.PersistentVolumeName == nil {
			continue
		}
		pv, err := c.volumes.Get(*a.Spec.Source.PersistentVolumeName)
		if err != nil {
			continue
		}
		v, ok := volumeOf(pv, func(string) bool { return true })
		if !ok || v.attachment(node) != a.Name {
			continue
		}
		h := Have{Volume: v, Attachment: a, Idle: now}
		if !wanted[a.Name] {
			if was, ok := before[a.Name]; ok {
				h.Idle = was
			}
			next[a.Name] = h.Idle
		}
		out = append(out, h)
	}
	delete(c.idle, node)
	if len(next) > 0 {
		c.idle[node] = next
	}
	return out
}

func (c *controller) apply(ctx context.Context, n *corev1.Node, key runtime.Key, p Plan) error {
	c.say(key.Name, p.Tell)
	if p.Report != nil {
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": n.UID}, "status": map[string]any{"volumesAttached": *p.Report}})
		if err != nil {
			return err
		}
		next, err := c.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("telling the node what is attached: %w", err)
		}
		if err == nil {
			c.written.Wrote(next)
		}
	}
	attachments := c.Client.StorageV1().VolumeAttachments()
	for _, a := range p.Detach {
		err := attachments.Delete(ctx, a.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &a.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("detaching %s: %w", *a.Spec.Source.PersistentVolumeName, err)
		}
	}
	for _, v := range p.Attach {
		a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: v.attachment(key.Name)}, Spec: storagev1.VolumeAttachmentSpec{
			Attacher: v.Driver, NodeName: key.Name, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &v.PV},
		}}
		c.mu.Lock()
		c.made[a.Name] = made{key.Name, v.PV, time.Now()}
		c.mu.Unlock()
		if _, err := attachments.Create(ctx, a, metav1.CreateOptions{}); err != nil {
			c.shown(a) // or never will be
			return fmt.Errorf("attaching %s: %w", v.PV, err)
		}
	}
	return nil
}

// say tells what was not said yet. What is not true any more may be said again when it is.
func (c *controller) say(node string, list []Event) {
	c.mu.Lock()
	before, next := c.told[node], map[string]bool{}
	for _, e := range list {
		next[e.Once] = true
	}
	delete(c.told, node)
	if len(next) > 0 {
		c.told[node] = next
	}
	c.mu.Unlock()
	for _, e := range list {
		if !before[e.Once] {
			c.Event(e.Pod, e.Type, e.Reason, e.Message)
		}
	}
}
