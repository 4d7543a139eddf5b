package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// inTurn and atOnce are how many pods the kubelet starts.
const (
	inTurn = 10
	atOnce = 20
)

// benchKubelet runs all five daemons with one node. It measures what they hold when idle, and then pods: created with the
// API server, scheduled, run, seen Running by a watcher; deleted, seen gone. The floor asks the runtime for as much itself.
func benchKubelet(b *bench) error {
	p, err := startPlane(b)
	if err != nil {
		return err
	}
	m, err := startControllers(b, p)
	if err != nil {
		return err
	}
	config, err := p.kubeconfig("scheduler")
	if err != nil {
		return err
	}
	s, err := b.start("scheduler", "https://127.0.0.1:10259", filepath.Join(b.bin, "scheduler"), "--kubeconfig", config)
	if err != nil {
		return err
	}
	n, err := startNode(b, p)
	if err != nil {
		return err
	}
	all := []*daemon{p.api, s, m, n.kubelet, n.proxy}
	if err := idle(b, p, all); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch, err := p.again().follow(ctx, "/api/v1/namespaces/bench/pods?")
	if err != nil {
		return err
	}
	seen := events(watch)
	done := b.profile("pods", n.kubelet)
	defer done()
	one, err := eachPod(p, n, seen, "turn", inTurn, 1)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.kubelet.tail())
	}
	many, err := eachPod(p, n, seen, "once", 1, atOnce)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.kubelet.tail())
	}
	memory := n.kubelet.rss()
	floor, err := dialRuntime(b, n.socket)
	if err != nil {
		return err
	}
	bareOne, err := floor.each(n.runtime, inTurn, 1)
	if err != nil {
		return err
	}
	bareMany, err := floor.each(n.runtime, 1, atOnce)
	if err != nil {
		return err
	}
	b.add(row{Work: "pod create -> Running, one at a time", Ours: one.start, Floor: bareOne.start, By: byWall, Goal: "0.22s", Upstream: "0.50s"})
	b.add(row{Work: fmt.Sprintf("the same, %d at once, until all", atOnce), Ours: many.start, Floor: bareMany.start, By: byWall, Goal: "1.5s", Upstream: "2.7s"})
	b.add(row{Work: "pod delete -> gone, one at a time", Ours: one.end, Floor: bareOne.end, By: byWall})
	b.add(row{Work: fmt.Sprintf("the same, %d at once, until all", atOnce), Ours: many.end, Floor: bareMany.end, By: byWall})
	b.size(fmt.Sprintf("RSS, %d pods", atOnce), memory, "50 MB")
	return nil
}

// idle waits until nothing happens and reads the daemons' memory, and what they use in five seconds.
func idle(b *bench, p *plane, all []*daemon) error {
	upstream := map[string]string{"apiserver": "280 MB"}
	time.Sleep(8 * time.Second)
	before := make([]time.Duration, len(all))
	for i, d := range all {
		before[i] = d.cpu()
	}
	time.Sleep(5 * time.Second)
	for i, d := range all {
		used := float64(d.cpu()-before[i]) / float64(5*time.Second) * 100
		b.add(row{Work: d.name + ", idle", Value: fmt.Sprintf("%s, %.1f%% of a core", mb(d.rss()), used), Idle: d.rss(), Upstream: upstream[d.name]})
	}
	// The heaps of idle daemons say where their memory is.
	b.profile("idle", all...)()
	_, err := p.do("GET", "/readyz", "", nil)
	return err
}

// life is what starting and ending took; one operation is all pods of a round.
type life struct{ start, end cost }

// eachPod does rounds of so many pods at once: creates them, waits until all run, deletes them, waits until all are gone.
func eachPod(p *plane, n *node, seen <-chan event, prefix string, rounds, pods int) (life, error) {
	var l life
	path := "/api/v1/namespaces/bench/pods"
	for r := range rounds {
		name := func(i int) string { return fmt.Sprintf("%s-%d-%d", prefix, r, i) }
		start, err := meter(1, n.kubelet, []*daemon{n.runtime}, func() error {
			err := parallel(pods, pods, func(i int) error { return p.create(path, runningPod(name(i))) })()
			if err != nil {
				return err
			}
			_, err = wait(seen, pods, time.Minute, func(e event) bool { return e.Object.Status.Phase == "Running" })
			return err
		})
		if err != nil {
			return l, fmt.Errorf("pods Running: %w", err)
		}
		end, err := meter(1, n.kubelet, []*daemon{n.runtime}, func() error {
			err := parallel(pods, pods, func(i int) error {
				_, err := p.do("DELETE", path+"/"+name(i), protobuf, nil)
				return err
			})()
			if err != nil {
				return err
			}
			_, err = wait(seen, pods, time.Minute, func(e event) bool { return e.Type == "DELETED" })
			return err
		})
		if err != nil {
			return l, fmt.Errorf("pods gone: %w", err)
		}
		l.start.add(start, rounds)
		l.end.add(end, rounds)
	}
	return l, nil
}

// add adds one round's share of a mean.
func (c *cost) add(o cost, rounds int) {
	c.CPU += o.CPU / time.Duration(rounds)
	c.Behind += o.Behind / time.Duration(rounds)
	c.Wall += o.Wall / time.Duration(rounds)
}

// runningPod is a pod that runs until it is told to end, with the volume that every pod has: its service account's token.
func runningPod(name string) object {
	return object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name, "labels": object{"app": "bench"}},
		"spec": object{"containers": []object{{
			"name": "main", "image": pauseImage, "imagePullPolicy": "IfNotPresent",
			"resources": object{"requests": object{"cpu": "10m", "memory": "8Mi"}},
		}}},
	}
}
