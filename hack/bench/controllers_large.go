package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
)

// A large cluster as the controllers see it.
const (
	manyPods    = 100000
	manyNodes   = 1000
	perService  = 20  // endpoints of each
	flaps       = 200 // changes of the one pod that flaps
	silentGrace = 20 * time.Second
	rolled      = 1000 // Deployments
	rolledPods  = 10   // of each
)

// manyServices is among how many services a pod flaps.
var manyServices = []int{50, 500, 5000}

// benchControllersLarge starts the controllers beside many pods and nodes; nobody runs them. It takes minutes.
func benchControllersLarge(b *bench) error {
	b.nodes = manyNodes
	p, err := startPlane(b)
	if err != nil {
		return err
	}
	if err := errors.Join(p.account(), fillNodes(b, p)); err != nil {
		return err
	}
	beat := newHeart(p)
	if err := beat.all(); err != nil {
		return err
	}
	if err := standPods(p); err != nil {
		return err
	}
	m, err := startControllers(b, p, "--node-monitor-grace-period", silentGrace.String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { beat.run(ctx) })
	if err := flapping(b, p, m); err != nil {
		return fmt.Errorf("%w\n%s", err, m.tail())
	}
	if err := rolling(b, p, m); err != nil {
		return fmt.Errorf("%w\n%s", err, m.tail())
	}
	if err := silence(b, p, m, beat); err != nil {
		return fmt.Errorf("%w\n%s", err, m.tail())
	}
	m.stop()
	return nil
}

// standPods stores the pods: running, ready, a hundred to a node, those of a service in a row.
func standPods(p *plane) error {
	if err := p.create("/api/v1/namespaces/bench/pods", storedPod(0, manyPods)); err != nil {
		return err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{etcdURL}, DialTimeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("reaching etcd: %w", err)
	}
	defer c.Close() //nolint:errcheck // nothing is in flight
	return multiply(p, c, 0, manyPods, func(i int, pod *corev1.Pod) {
		pod.Labels["service"] = serviceName(i / perService)
		pod.Spec.NodeName = nodeName(i % manyNodes)
		pod.Status.Phase = corev1.PodRunning
		pod.Status.PodIP = fmt.Sprintf("10.%d.%d.%d", 240+i>>16, i>>8&255, i&255)
		pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	})
}

func serviceName(i int) string { return fmt.Sprintf("svc-%04d", i) }

// flapping has one pod go ready and not ready while there are ever more services, and tells what memory that takes. The
// floor writes the same slice and the same endpoints.
func flapping(b *bench, p *plane, m *daemon) error {
	slicesPath := "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices"
	have := 0
	for _, n := range manyServices {
		err := parallel(n-have, 16, func(i int) error {
			name := serviceName(have + i)
			return p.create("/api/v1/namespaces/bench/services", object{
				"apiVersion": "v1", "kind": "Service", "metadata": object{"name": name},
				"spec": object{"clusterIP": "None", "selector": object{"service": name}, "ports": []object{{"port": 80}}},
			})
		})()
		if err != nil {
			return err
		}
		have = n
		for _, path := range []string{slicesPath, "/api/v1/namespaces/bench/endpoints"} {
			err = await(fmt.Sprintf("%s of %d services", path, n), 2*time.Minute, func() error {
				got, err := p.count(path)
				if err == nil && got < n {
					err = fmt.Errorf("there are %d", got)
					time.Sleep(200 * time.Millisecond)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		if err := calm(m); err != nil {
			return err
		}
		if n == manyServices[0] {
			b.size(fmt.Sprintf("RSS, %d pods, %d nodes", manyPods, manyNodes), m.rss(), "400 MB")
			b.size("  at most, while it lists", memory(m.cmd.Process.Pid, "VmHWM:"), "")
		}
		if err := flap(b, p, m, n, slicesPath); err != nil {
			return err
		}
	}
	b.size(fmt.Sprintf("RSS, %d pods, %d services", manyPods, have), m.rss(), "400 MB")
	return nil
}

func flap(b *bench, p *plane, m *daemon, services int, path string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var seen counter
	for _, path := range []string{path, "/api/v1/namespaces/bench/endpoints"} {
		watch, err := p.again().follow(ctx, path+"?")
		if err != nil {
			return err
		}
		go seen.read(watch)
	}
	condition := func(i int) string {
		status := "False"
		if i%2 == 1 {
			status = "True"
		}
		return fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, status)
	}
	done := b.profile(fmt.Sprintf("flap-%d", services), m)
	ours, err := meter(flaps, m, p.servers(), times(flaps, func(i int) error {
		if err := p.patch(podPath(perService*(services/2))+"/status", condition(i)); err != nil {
			return err
		}
		return seen.until(2*(i+1), 10*time.Second)
	}))
	done()
	if err != nil {
		return fmt.Errorf("a change did not come through: %w", err)
	}
	slice, err := p.first(path, "kubernetes.io/service-name="+serviceName(services/2))
	if err != nil {
		return err
	}
	floor, err := meter(flaps, driver, p.servers(), times(flaps, func(i int) error {
		if err := p.patch(podPath(1)+"/status", condition(i)); err != nil {
			return err
		}
		note := fmt.Sprintf(`{"metadata":{"labels":{"turn":"%d"}}}`, i)
		return errors.Join(p.patch(path+"/"+slice, note), p.patch("/api/v1/namespaces/bench/endpoints/"+serviceName(services/2), note))
	}))
	if err != nil {
		return err
	}
	b.add(row{Work: fmt.Sprintf("one pod of %d services x %d flaps, per change", services, perService), Ours: ours, Floor: floor, By: byWall, Goal: "flat"})
	return nil
}

// rolling changes the template of many Deployments at once. They may be without pods meanwhile, since nobody runs these.
func rolling(b *bench, p *plane, m *daemon) error {
	if err := p.create("/api/v1/namespaces", named("roll")); err != nil {
		return err
	}
	path, pods := "/apis/apps/v1/namespaces/roll/deployments", "/api/v1/namespaces/roll/pods"
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch, err := p.again().follow(ctx, pods+"?")
	if err != nil {
		return err
	}
	var seen counter
	go seen.read(watch)
	name := func(i int) string { return fmt.Sprintf("app-%04d", i) }
	err = parallel(rolled, 16, func(i int) error {
		return p.create(path, object{
			"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": name(i)},
			"spec": object{
				"replicas": rolledPods, "selector": object{"matchLabels": object{"app": name(i)}},
				"strategy": object{"type": "RollingUpdate", "rollingUpdate": object{"maxSurge": "100%", "maxUnavailable": "100%"}},
				"template": object{"metadata": object{"labels": object{"app": name(i)}}, "spec": waitingPod("")["spec"]},
			},
		})
	})()
	const n = rolled * rolledPods
	if err = errors.Join(err, seen.until(n, 5*time.Minute), calm(m)); err != nil {
		return err
	}
	done := b.profile("roll", m, p.api)
	ours, err := meter(2*n, m, p.servers(), func() error {
		err := parallel(rolled, 16, func(i int) error {
			return p.patch(path+"/"+name(i), `{"spec":{"template":{"metadata":{"annotations":{"turn":"2"}}}}}`)
		})()
		return errors.Join(err, seen.until(3*n, 5*time.Minute))
	})
	done()
	if err != nil {
		return err
	}
	floor, err := meter(2*n, driver, p.servers(), parallel(n, creators, func(i int) error {
		name := fmt.Sprintf("floor%05d", i)
		err := p.create(pods, waitingPod(name))
		if err == nil {
			_, err = p.do("DELETE", pods+"/"+name, protobuf, nil)
		}
		return err
	}))
	if err != nil {
		return err
	}
	b.add(row{
		Work: fmt.Sprintf("%d Deployments of %d rolled at once, per pod made or deleted", rolled, rolledPods), Value: fmt.Sprintf("%.0f/s (floor %.0f/s)", 1/ours.Wall.Seconds(), 1/floor.Wall.Seconds()),
		Ours: ours, Floor: floor, By: byWall, Goal: "800/s",
	})
	b.size("RSS afterwards", m.rss(), "400 MB")
	return nil
}

// silence lets nodes fall silent, one and then many, and tells how long after their grace they have their taints. The floor
// is as many patches of nodes.
func silence(b *bench, p *plane, m *daemon, beat *heart) error {
	for _, n := range []int{1, manyNodes / 5} {
		ctx, cancel := context.WithCancel(context.Background())
		watch, err := p.again().follow(ctx, "/api/v1/nodes?")
		if err != nil {
			cancel()
			return err
		}
		used := m.cpu()
		last, err := beat.stop(n)
		if err != nil {
			cancel()
			return err
		}
		first, late, err := tainted(watch, n, last.Add(silentGrace+time.Minute), beat.quiet)
		cancel()
		if err != nil {
			return fmt.Errorf("%d silent nodes: %w", n, err)
		}
		b.add(row{
			Work:  fmt.Sprintf("%d of %d nodes silent, grace %s: taints on after it, first and last", n, manyNodes, silentGrace),
			Value: fmt.Sprintf("%s, %s", first.Sub(last.Add(silentGrace)).Round(time.Millisecond), late.Sub(last.Add(silentGrace)).Round(time.Millisecond)), Goal: "2s",
			Ours: cost{CPU: (m.cpu() - used) / time.Duration(n)},
		})
	}
	return nil
}

// tainted reads nodes' events until so many are unreachable, and answers when the first and the last was.
func tainted(watch io.Reader, n int, until time.Time, ours func(node string) bool) (first, last time.Time, err error) {
	names := map[string]bool{}
	timeout := time.After(time.Until(until))
	in := make(chan string)
	go func() {
		defer close(in)
		d := json.NewDecoder(watch)
		for {
			var e struct {
				Object struct {
					Metadata struct{ Name string }
					Spec     struct {
						Taints []struct{ Key, Effect string }
					}
				}
			}
			if d.Decode(&e) != nil {
				return
			}
			for _, t := range e.Object.Spec.Taints {
				if t.Key == "node.kubernetes.io/unreachable" && t.Effect == "NoSchedule" {
					select {
					case in <- e.Object.Metadata.Name:
					case <-timeout:
						return
					}
				}
			}
		}
	}()
	for name := range in {
		if !ours(name) {
			continue // its heart was late
		}
		if !names[name] {
			names[name], last = true, time.Now()
		}
		if len(names) == 1 {
			first = last
		}
		if len(names) == n {
			return first, last, nil
		}
	}
	return first, last, fmt.Errorf("only %d of them were tainted", len(names))
}

// heart renews the leases of nodes, as their kubelets would.
type heart struct {
	p      *plane
	mu     sync.Mutex
	silent int // how many of the first nodes are
}

func newHeart(p *plane) *heart { return &heart{p: p} }

const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

// all makes the leases.
func (h *heart) all() error {
	return parallel(manyNodes, 8, func(i int) error {
		return h.p.create(leases, object{
			"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": object{"name": nodeName(i)},
			"spec": object{"holderIdentity": nodeName(i), "leaseDurationSeconds": 40, "renewTime": now()},
		})
	})()
}

func now() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000000Z") }

func (h *heart) renew(i int) error {
	return h.p.patch(leases+"/"+nodeName(i), fmt.Sprintf(`{"spec":{"renewTime":%q}}`, now()))
}

// run renews every lease each few seconds until ctx ends.
func (h *heart) run(ctx context.Context) {
	each := time.NewTicker(5 * time.Second / manyNodes)
	defer each.Stop()
	for i := 0; ; i = (i + 1) % manyNodes {
		select {
		case <-ctx.Done():
			return
		case <-each.C:
		}
		if !h.quiet(nodeName(i)) {
			_ = h.renew(i) // one that is late shows in the figures
		}
	}
}

// stop renews the first n nodes once more, for the last time, and answers when that was done.
func (h *heart) stop(n int) (time.Time, error) {
	h.mu.Lock()
	from := h.silent
	h.silent += n
	h.mu.Unlock()
	err := parallel(n, 16, func(i int) error { return h.renew(from + i) })()
	return time.Now(), err
}

// quiet tells whether a node was told to be silent.
func (h *heart) quiet(node string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return node < nodeName(h.silent)
}

// calm waits until a daemon has nothing to do: less than a tenth of a second in two.
func calm(d *daemon) error {
	return await(d.name+" to be calm", 3*time.Minute, func() error {
		before := d.cpu()
		time.Sleep(2 * time.Second)
		if used := d.cpu() - before; used > 200*time.Millisecond {
			return fmt.Errorf("it used %s in two seconds", used)
		}
		return nil
	})
}

// count tells how many objects there are at a path.
func (c *client) count(path string) (int, error) {
	text, err := c.do(http.MethodGet, path+"?limit=1", jsonType, nil)
	if err != nil {
		return 0, err
	}
	var l struct {
		Metadata struct{ RemainingItemCount int }
		Items    []struct{}
	}
	err = json.Unmarshal(text, &l)
	return len(l.Items) + l.Metadata.RemainingItemCount, err
}

// first answers the name of an object with a label.
func (c *client) first(path, label string) (string, error) {
	text, err := c.do(http.MethodGet, path+"?labelSelector="+label, jsonType, nil)
	if err != nil {
		return "", err
	}
	var l struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return "", err
	}
	if slices.ContainsFunc(l.Items, func(x struct{ Metadata struct{ Name string } }) bool { return x.Metadata.Name != "" }) {
		return l.Items[0].Metadata.Name, nil
	}
	return "", fmt.Errorf("nothing at %s has label %s", path, label)
}
