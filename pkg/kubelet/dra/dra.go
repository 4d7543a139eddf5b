// Package dra has drivers prepare the devices of resource claims (dynamic resource allocation).
//
// Flow: package plugins finds a plugin of kind DRAPlugin -> Claims.Meet keeps a connection to it, and listens to the health
// of its devices -> Prepare, before a pod's sandbox, reads the pod's claims from the API and asks the drivers for those
// which no pod of this node uses yet -> Given tells a container's CDI devices -> Release, once nothing of the pod runs, asks
// the drivers to undo it for claims whose last pod it was. What is prepared is in a checkpoint of upstream's form before a
// driver is asked, so that a kubelet which comes back undoes what an earlier one has begun. Drivers publish their
// ResourceSlices themselves; those of a driver which went and stays away are removed by Sweep.
// Methods may be called at once; calls which prepare or undo wait for each other.
package dra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	drahealth "k8s.io/kubelet/pkg/apis/dra-health/v1"
	drahealthalpha "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/plugins"
)

// Config is what Claims work with.
type Config struct {
	// Root is the kubelet's folder.
	Root string
	// Claim reads a claim from the API.
	Claim func(ctx context.Context, namespace, name string) (*resourcev1.ResourceClaim, error)
	// Wipe removes the node's ResourceSlices of all drivers but those present.
	Wipe func(ctx context.Context, present map[string]bool) error
	// Touched: how a pod's devices are has changed.
	Touched func(uid string)
	Log     *slog.Logger
}

// Claims are those prepared on this node.
type Claims struct {
	cfg Config

	// turn is held while drivers are asked.
	turn sync.Mutex

	mu       sync.Mutex
	ctx      context.Context
	wg       sync.WaitGroup
	drivers  map[string]*driver
	left     time.Time
	known    map[types.UID]ClaimInfoState
	prepared map[types.UID]map[string]bool
	health   map[string]health
}

type driver struct {
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	// service is the version of the API it speaks.
	prepare, unprepare string
}

type health struct {
	is      v1.ResourceHealthStatus
	message string
	until   time.Time
}

// call bounds one call of a driver; away is how long a driver may be gone before its slices are removed.
const (
	call = 45 * time.Second
	away = 30 * time.Second
)

// New reads what an earlier kubelet has had prepared.
func New(cfg Config) (*Claims, error) {
	c := &Claims{cfg: cfg, drivers: map[string]*driver{}, known: map[types.UID]ClaimInfoState{}, prepared: map[types.UID]map[string]bool{}, health: map[string]health{}, left: time.Now()}
	list, err := read(cfg.Root)
	if err != nil {
		return nil, err
	}
	for _, k := range list {
		c.known[k.ClaimUID] = k
	}
	return c, nil
}

// Run ends the connections with ctx, and until then removes slices of drivers which stay away.
func (c *Claims) Run(ctx context.Context) {
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			c.mu.Lock()
			for _, d := range c.drivers {
				d.cancel()
				_ = d.conn.Close()
			}
			c.mu.Unlock()
			c.wg.Wait()
			return
		case <-t.C:
		}
		c.mu.Lock()
		due := !c.left.IsZero() && time.Since(c.left) > away
		present := map[string]bool{}
		for name := range c.drivers {
			present[name] = true
		}
		c.mu.Unlock()
		if !due {
			continue
		}
		if err := c.cfg.Wipe(ctx, present); err != nil {
			c.cfg.Log.Debug("removing the slices of drivers which are away", "err", err)
			continue
		}
		c.mu.Lock()
		if time.Since(c.left) > away {
			c.left = time.Time{}
		}
		c.mu.Unlock()
	}
}

// Meet takes a driver.
func (c *Claims) Meet(_ context.Context, p plugins.Plugin) error {
	d := &driver{}
	switch {
	case slices.Contains(p.Versions, dra.DRAPluginService):
		d.prepare, d.unprepare = dra.DRAPlugin_NodePrepareResources_FullMethodName, dra.DRAPlugin_NodeUnprepareResources_FullMethodName
	case slices.Contains(p.Versions, drabeta.DRAPluginService):
		// Its messages are the same on the wire.
		d.prepare, d.unprepare = drabeta.DRAPlugin_NodePrepareResources_FullMethodName, drabeta.DRAPlugin_NodeUnprepareResources_FullMethodName
	default:
		return fmt.Errorf("DRA driver %s speaks none of %s, %s but %v", p.Name, dra.DRAPluginService, drabeta.DRAPluginService, p.Versions)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil || c.ctx.Err() != nil {
		return errors.New("the kubelet is not ready for drivers")
	}
	conn, err := plugins.Dial(p.Endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	d.conn, d.cancel = conn, cancel
	if old := c.drivers[p.Name]; old != nil {
		old.cancel()
		_ = old.conn.Close()
	}
	c.drivers[p.Name] = d
	method := ""
	if slices.Contains(p.Versions, drahealth.DRAResourceHealthService) {
		method = drahealth.DRAResourceHealth_NodeWatchResources_FullMethodName
	} else if slices.Contains(p.Versions, drahealthalpha.DRAResourceHealthService) {
		method = drahealthalpha.DRAResourceHealth_NodeWatchResources_FullMethodName
	}
	if method != "" {
		c.wg.Go(func() { c.listen(ctx, p.Name, conn, method) })
	}
	return nil
}

// Forget drops a driver which has gone. What it prepared stays prepared.
func (c *Claims) Forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.drivers[name]; d != nil {
		d.cancel()
		_ = d.conn.Close()
		delete(c.drivers, name)
		c.left = time.Now()
	}
}

func (c *Claims) driver(name string) (*driver, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.drivers[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("DRA driver %s is not registered", name)
}

// claimsOf reads the claims of a pod from the API.
func (c *Claims) claimsOf(ctx context.Context, pod *v1.Pod) ([]*resourcev1.ResourceClaim, error) {
	var out []*resourcev1.ResourceClaim
	for i := range pod.Spec.ResourceClaims {
		name, owned, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, fmt.Errorf("podResourceClaim %s: %w", pod.Spec.ResourceClaims[i].Name, err)
		}
		if name == nil {
			continue // its template made none
		}
		claim, err := c.cfg.Claim(ctx, pod.Namespace, *name)
		if err != nil {
			return nil, fmt.Errorf("get ResourceClaim %s: %w", *name, err)
		}
		if owned {
			if err := resourceclaim.IsForPod(pod, claim, true); err != nil {
				return nil, err
			}
		}
		out = append(out, claim)
	}
	if st := pod.Status.ExtendedResourceClaimStatus; st != nil {
		claim, err := c.cfg.Claim(ctx, pod.Namespace, st.ResourceClaimName)
		if err != nil {
			return nil, fmt.Errorf("get ResourceClaim %s: %w", st.ResourceClaimName, err)
		}
		out = append(out, claim)
	}
	return out, nil
}

// Prepare has drivers prepare the claims of a pod. Doing so again asks for what is missing only.
func (c *Claims) Prepare(ctx context.Context, pod *v1.Pod) error {
	if len(pod.Spec.ResourceClaims) == 0 && pod.Status.ExtendedResourceClaimStatus == nil {
		return nil
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	claims, err := c.claimsOf(ctx, pod)
	if err != nil {
		return err
	}
	c.mu.Lock()
	plan, err := decide(pod, claims, c.known, c.prepared)
	if err == nil {
		for _, k := range plan.Known {
			c.known[k.ClaimUID] = k
		}
		err = c.saveLocked()
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.cfg.Log.Debug("preparing claims", "pod", pod.Namespace+"/"+pod.Name, "plan", plan.String())
	for _, w := range plan.Prepare {
		if err := c.prepare(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// ask makes the claims of a request by what is known of them.
func (c *Claims) ask(uids []types.UID) []*dra.Claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*dra.Claim
	for _, uid := range uids {
		k := c.known[uid]
		out = append(out, &dra.Claim{Namespace: k.Namespace, Uid: string(uid), Name: k.ClaimName})
	}
	return out
}

func (c *Claims) prepare(ctx context.Context, w Work) error {
	d, err := c.driver(w.Driver)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	r := &dra.NodePrepareResourcesResponse{}
	if err := d.conn.Invoke(ctx, d.prepare, &dra.NodePrepareResourcesRequest{Claims: c.ask(w.Claims)}, r); err != nil {
		return fmt.Errorf("NodePrepareResources: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, uid := range w.Claims {
		k := c.known[uid]
		a := r.Claims[string(uid)]
		switch {
		case a == nil:
			return fmt.Errorf("NodePrepareResources skipped ResourceClaim %s", k.ClaimName)
		case a.Error != "":
			return fmt.Errorf("NodePrepareResources failed for ResourceClaim %s: %s", k.ClaimName, a.Error)
		}
		var st DriverState
		for _, x := range a.Devices {
			dev := Device{PoolName: x.PoolName, DeviceName: x.DeviceName, RequestNames: x.RequestNames, CDIDeviceIDs: x.CdiDeviceIds}
			if x.ShareId != nil {
				id := types.UID(*x.ShareId)
				dev.ShareID = &id
			}
			st.Devices = append(st.Devices, dev)
		}
		k.DriverState[w.Driver] = st
		if c.prepared[uid] == nil {
			c.prepared[uid] = map[string]bool{}
		}
		c.prepared[uid][w.Driver] = true
	}
	return c.saveLocked()
}

// Share is what one container has of one claim.
type Share struct {
	Claim, Namespace string
	Devices          []Given
}

// Given is one device of a container, and for which request of which claim of the pod's spec.
type Given struct {
	Device
	Driver, Name, Request string
}

// Of are the claims of a container, each with its devices.
func (c *Claims) Of(pod *v1.Pod, k *v1.Container) ([]Share, error) {
	claims, extended := wanted(pod, k)
	if len(claims)+len(extended) == 0 {
		return nil, nil
	}
	objects := map[string]string{}
	for i := range pod.Spec.ResourceClaims {
		name, _, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err == nil && name != nil {
			objects[pod.Spec.ResourceClaims[i].Name] = *name
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Share
	add := func(spec, object string, requests []string) error {
		for _, info := range c.known {
			if _, ours := info.PodUIDs[string(pod.UID)]; !ours || info.ClaimName != object || info.Namespace != pod.Namespace {
				continue
			}
			s := Share{Claim: object, Namespace: pod.Namespace}
			for _, name := range sortedKeys(info.DriverState) {
				for _, d := range info.DriverState[name].Devices {
					if at := slices.IndexFunc(requests, func(r string) bool { return serves(d, r) }); at >= 0 {
						s.Devices = append(s.Devices, Given{d, name, spec, requests[at]})
					}
				}
			}
			out = append(out, s)
			return nil
		}
		return fmt.Errorf("unable to get claim info for claim %s in namespace %s", object, pod.Namespace)
	}
	for _, name := range sortedKeys(claims) {
		if objects[name] == "" {
			continue
		}
		if err := add(name, objects[name], claims[name]); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(extended) {
		if err := add("", name, extended[name]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Release has drivers undo what they prepared for claims whose last pod here this was.
func (c *Claims) Release(ctx context.Context, uid string) error {
	return c.Keep(ctx, func(pod string) bool { return pod != uid })
}

// Keep does so for all pods but those kept.
func (c *Claims) Keep(ctx context.Context, keep func(uid string) bool) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	calls := map[string][]types.UID{}
	var over []types.UID
	c.mu.Lock()
	for id, k := range c.known {
		gone := false
		for uid := range k.PodUIDs {
			gone = gone || !keep(uid)
		}
		if !gone {
			continue
		}
		rest := map[string]struct{}{}
		for uid := range k.PodUIDs {
			if keep(uid) {
				rest[uid] = struct{}{}
			}
		}
		if len(rest) > 0 {
			k.PodUIDs = rest
			c.known[id] = k
			continue
		}
		over = append(over, id)
		for name := range k.DriverState {
			calls[name] = append(calls[name], id)
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, name := range sortedKeys(calls) {
		errs = append(errs, c.unprepare(ctx, Work{name, calls[name]}))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range over {
		if len(c.known[id].DriverState) == 0 {
			delete(c.known, id)
			delete(c.prepared, id)
		}
	}
	if len(over) > 0 {
		errs = append(errs, c.saveLocked())
	}
	return errors.Join(errs...)
}

func (c *Claims) unprepare(ctx context.Context, w Work) error {
	d, err := c.driver(w.Driver)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	r := &dra.NodeUnprepareResourcesResponse{}
	if err := d.conn.Invoke(ctx, d.unprepare, &dra.NodeUnprepareResourcesRequest{Claims: c.ask(w.Claims)}, r); err != nil {
		return fmt.Errorf("NodeUnprepareResources: %w", err)
	}
	var errs []error
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, uid := range w.Claims {
		k := c.known[uid]
		switch a := r.Claims[string(uid)]; {
		case a == nil:
			errs = append(errs, fmt.Errorf("NodeUnprepareResources skipped ResourceClaim %s", k.ClaimName))
		case a.Error != "":
			errs = append(errs, fmt.Errorf("NodeUnprepareResources failed for ResourceClaim %s: %s", k.ClaimName, a.Error))
		default:
			delete(k.DriverState, w.Driver)
			delete(c.prepared[uid], w.Driver)
		}
	}
	return errors.Join(errs...)
}

func (c *Claims) saveLocked() error {
	list := make([]ClaimInfoState, 0, len(c.known))
	for _, k := range c.known {
		list = append(list, k)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ClaimUID < list[j].ClaimUID })
	return write(c.cfg.Root, list)
}
