package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bindsInFlight is how many bindings the scheduler posts at once; so does its floor.
const bindsInFlight = 128

// placing is a scheduler beside a plane with nodes that only exist in the API.
type placing struct {
	*plane
	s     *daemon
	bound counter   // of the pods that got their node since it started
	begun time.Time // when it was started
}

// startPlacing makes the plane and its nodes, has fill put pods there, and starts the scheduler. stop ends the watch of what is bound.
func startPlacing(b *bench, nodes int, fill func(p *plane) error) (pl *placing, stop func(), err error) {
	p, err := startPlane(b)
	if err != nil {
		return nil, nil, err
	}
	if err := p.account(); err != nil {
		return nil, nil, err
	}
	b.nodes = nodes
	if err := fillNodes(b, p); err != nil {
		return nil, nil, err
	}
	if err := fill(p); err != nil {
		return nil, nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	watch, err := p.again().follow(ctx, "/api/v1/pods?fieldSelector=spec.nodeName%21%3D&")
	if err != nil {
		stop()
		return nil, nil, err
	}
	pl = &placing{plane: p}
	go pl.bound.read(watch)
	config, err := p.kubeconfig("scheduler")
	if err == nil {
		pl.s, err = b.start("scheduler", "https://127.0.0.1:10259", filepath.Join(b.bin, "scheduler"), "--kubeconfig", config)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	pl.begun = time.Now()
	return pl, stop, nil
}

// wait has a pod wait for the scheduler.
func (pl *placing) wait(name string) error {
	return pl.create("/api/v1/namespaces/bench/pods", waitingPod(name))
}

// until waits for so many pods to be bound, and tells what the scheduler said when they are not.
func (pl *placing) until(n int, patience time.Duration) error {
	if err := pl.bound.until(n, patience); err != nil {
		return fmt.Errorf("%w\n%s", err, pl.s.tail())
	}
	return nil
}

// first reports how long the first binding took.
func (pl *placing) first(nodes, pods int, patience time.Duration) error {
	if err := pl.until(1, patience); err != nil {
		return fmt.Errorf("no pod was bound: %w", err)
	}
	pl.b.add(row{Work: fmt.Sprintf("start to first bound, %d nodes, %d pods", nodes, pods), Ours: cost{CPU: pl.s.cpu(), Wall: time.Since(pl.begun)}})
	return nil
}

// decisions answers how long they took.
func (pl *placing) decisions() (row, error) {
	p99, err := quantile(pl.s, "scheduler_scheduling_algorithm_duration_seconds", 0.99)
	return row{Work: "decision", Value: p99, Goal: "p99 5ms"}, err
}

// benchScheduler has pods wait for the scheduler on nodes that only exist in the API, and measures until all are bound; then
// one pod at a time. The floor posts bindings for as many pods without thinking.
func benchScheduler(b *bench) error {
	waiting := func(p *plane, prefix string) func(int) error {
		return func(i int) error {
			return p.create("/api/v1/namespaces/bench/pods", waitingPod(fmt.Sprintf("%s%05d", prefix, i)))
		}
	}
	p, stop, err := startPlacing(b, b.nodes, func(p *plane) error { return parallel(b.pods, 8, waiting(p, "p"))() })
	if err != nil {
		return err
	}
	defer stop()
	if err := p.first(b.nodes, b.pods, 30*time.Second); err != nil {
		return err
	}
	s := p.s
	done := b.profile("burst", s, p.api)
	before := int(p.bound.seen.Load())
	from := time.Now()
	ours, err := meter(b.pods-before, s, p.servers(), func() error { return p.until(b.pods, 2*time.Minute) })
	if err != nil {
		return err
	}
	rate := float64(b.pods-before) / time.Since(from).Seconds()
	done()
	memory := s.rss()
	done = b.profile("single", s, p.api)
	one := make([]time.Duration, b.more(100))
	single, err := meter(len(one), s, p.servers(), times(len(one), func(i int) error {
		from := time.Now()
		if err := waiting(p.plane, "one")(i); err != nil {
			return err
		}
		err := p.until(b.pods+i+1, 10*time.Second)
		one[i] = time.Since(from)
		return err
	}))
	if err != nil {
		return err
	}
	done()
	decisions, err := p.decisions()
	if err != nil {
		return err
	}
	s.stop()
	n := b.pods / 2
	if err := parallel(n, 8, waiting(p.plane, "floor"))(); err != nil {
		return err
	}
	from = time.Now()
	least, err := meter(n, driver, p.servers(), parallel(n, bindsInFlight, func(i int) error {
		name := fmt.Sprintf("floor%05d", i)
		return p.create("/api/v1/namespaces/bench/pods/"+name+"/binding", object{
			"apiVersion": "v1", "kind": "Binding", "metadata": object{"name": name}, "target": object{"kind": "Node", "name": nodeName(i % b.nodes)},
		})
	}))
	if err != nil {
		return err
	}
	floorRate := float64(n) / time.Since(from).Seconds()
	b.add(row{Work: "pods that wait, per pod", Value: fmt.Sprintf("%.0f/s (floor %.0f/s)", rate, floorRate), Ours: ours, Floor: least, By: byWall,
		Goal: "1000/s", Upstream: "51/s, 120/s"})
	slices.Sort(one)
	b.add(row{Work: "pod created -> bound, one at a time", Value: "p99 " + short(one[len(one)*99/100]), Ours: single})
	b.add(decisions)
	b.size(fmt.Sprintf("RSS, %d nodes, %d pods", b.nodes, b.pods), memory, "")
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

// fillNodes makes nodes that nobody stands behind. Admission taints a new node until somebody says it is ready.
func fillNodes(b *bench, p *plane) error {
	room := object{"cpu": "32", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"}
	return parallel(b.nodes, 8, func(i int) error {
		name := nodeName(i)
		err := p.create("/api/v1/nodes", object{
			"apiVersion": "v1", "kind": "Node",
			"metadata": object{"name": name, "labels": object{
				"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
				"topology.kubernetes.io/zone": fmt.Sprintf("zone-%d", i%3),
			}},
			"status": object{
				"capacity": room, "allocatable": room,
				"conditions": []object{{"type": "Ready", "status": "True", "reason": "KubeletReady"}},
				"nodeInfo":   object{"kubeletVersion": "v1.37.2", "operatingSystem": "linux", "architecture": "amd64"},
			},
		})
		if err != nil {
			return err
		}
		return p.patch("/api/v1/nodes/"+name, `{"spec":{"taints":null}}`)
	})()
}

// waitingPod is a pod as a Deployment makes it, not yet on a node.
func waitingPod(name string) object {
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": name, "labels": object{"app": "bench"}},
		"spec": object{"containers": []object{{
			"name": "main", "image": "registry.example/app:1.2.3",
			"resources": object{"requests": object{"cpu": "100m", "memory": "64Mi"}},
		}}},
	}
}

// quantile tells between which bounds of a histogram a quantile lies, and the mean.
func quantile(of *daemon, metric string, q float64) (string, error) {
	text, err := newClient(of.debug, "root").do("GET", "/metrics", "", nil)
	if err != nil {
		return "", err
	}
	type bucket struct{ bound, count float64 }
	var buckets []bucket
	var total, count float64
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue // a comment
		}
		switch rest, ok := strings.CutPrefix(name, metric); {
		case !ok:
		case rest == "_sum":
			total = v
		case rest == "_count":
			count = v
		case strings.HasPrefix(rest, `_bucket{le="`):
			bound, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimPrefix(rest, `_bucket{le="`), `"}`), 64)
			buckets = append(buckets, bucket{bound, v})
		}
	}
	mean := total / count
	if math.IsNaN(mean) {
		return "not exposed", nil
	}
	at := slices.IndexFunc(buckets, func(b bucket) bool { return b.count >= q*count })
	if at < 0 {
		return "not exposed", nil
	}
	seconds := func(s float64) string { return short(time.Duration(s * 1e9)) }
	return fmt.Sprintf("p%.0f <= %s, mean %s", q*100, seconds(buckets[at].bound), seconds(mean)), nil
}
