package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// A large cluster: 30 pods stand on each of its nodes, those of a thousand Deployments.
const (
	largeNodes = 5000
	largePods  = 150000
	largeApps  = 1000
)

// benchLarge starts the scheduler beside a large cluster that stands already, and has it place more. Filling the cluster takes minutes,
// so that this section runs only by its name.
func benchLarge(b *bench) error {
	p, err := startPlane(b)
	if err != nil {
		return err
	}
	if err := p.account(); err != nil {
		return err
	}
	b.nodes = largeNodes
	if err := fillNodes(b, p); err != nil {
		return err
	}
	err = parallel(largePods, 16, func(i int) error { return p.create("/api/v1/namespaces/bench/pods", standingPod(i)) })()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch, err := p.again().follow(ctx, "/api/v1/pods?fieldSelector=spec.nodeName%21%3D&")
	if err != nil {
		return err
	}
	var bound counter
	go bound.read(watch)
	config, err := p.kubeconfig("scheduler")
	if err != nil {
		return err
	}
	s, err := b.start("scheduler", "https://127.0.0.1:10259", filepath.Join(b.bin, "scheduler"), "--kubeconfig", config)
	if err != nil {
		return err
	}
	one := func(name string) error { return p.create("/api/v1/namespaces/bench/pods", waitingPod(name)) }
	begun := time.Now()
	if err := one("first"); err != nil {
		return err
	}
	if err := bound.until(1, 2*time.Minute); err != nil {
		return fmt.Errorf("no pod was bound: %w\n%s", err, s.tail())
	}
	b.add(row{Work: fmt.Sprintf("start to first bound, %d nodes, %d pods", largeNodes, largePods), Ours: cost{CPU: s.cpu(), Wall: time.Since(begun)}})
	time.Sleep(5 * time.Second) // it gives back what the first lists took
	b.size("scheduler, RSS", s.rss(), "300 MB")
	b.size("scheduler, most RSS while it listed", memory(s.cmd.Process.Pid, "VmHWM:"), "")
	done := b.profile("large", s, p.api)
	// They are created while it works: what is measured is the whole path.
	from := time.Now()
	n := b.pods
	ours, err := meter(n, s, p.servers(), func() error {
		if err := parallel(n, 8, func(i int) error { return one(fmt.Sprintf("p%05d", i)) })(); err != nil {
			return err
		}
		return bound.until(n+1, 2*time.Minute)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.tail())
	}
	rate := float64(n) / time.Since(from).Seconds()
	done()
	p99, err := quantile(s, "scheduler_scheduling_algorithm_duration_seconds", 0.99)
	if err != nil {
		return err
	}
	b.add(row{Work: "pods created and bound, per pod", Value: fmt.Sprintf("%.0f/s", rate), Ours: ours, Goal: "700/s"})
	b.add(row{Work: "decision", Value: p99, Goal: "p99 5ms"})
	b.size("scheduler, RSS afterwards", s.rss(), "300 MB")
	s.stop()
	return nil
}

// standingPod is a pod of one of many Deployments, on its node and running as the kubelet tells it.
func standingPod(i int) object {
	app := fmt.Sprintf("app-%d", i%largeApps)
	pod := waitingPod(fmt.Sprintf("%s-%06d", app, i))
	pod["metadata"].(object)["labels"] = object{"app": app, "pod-template-hash": "5d9c5c5f8"}
	pod["spec"].(object)["nodeName"] = nodeName(i % largeNodes)
	return pod
}
