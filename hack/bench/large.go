package main

import (
	"fmt"
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
	p, stop, err := startPlacing(b, largeNodes, func(p *plane) error {
		return parallel(largePods, 16, func(i int) error { return p.create("/api/v1/namespaces/bench/pods", standingPod(i)) })()
	})
	if err != nil {
		return err
	}
	defer stop()
	if err := p.wait("first"); err != nil {
		return err
	}
	if err := p.first(largeNodes, largePods, 2*time.Minute); err != nil {
		return err
	}
	s := p.s
	time.Sleep(5 * time.Second) // it gives back what the first lists took
	b.size("scheduler, RSS", s.rss(), "300 MB")
	b.size("scheduler, most RSS while it listed", memory(s.cmd.Process.Pid, "VmHWM:"), "")
	done := b.profile("large", s, p.api)
	// They are created while it works: what is measured is the whole path.
	from := time.Now()
	n := b.pods
	ours, err := meter(n, s, p.servers(), func() error {
		if err := parallel(n, 8, func(i int) error { return p.wait(fmt.Sprintf("p%05d", i)) })(); err != nil {
			return err
		}
		return p.until(n+1, 2*time.Minute)
	})
	if err != nil {
		return err
	}
	rate := float64(n) / time.Since(from).Seconds()
	done()
	decisions, err := p.decisions()
	if err != nil {
		return err
	}
	b.add(row{Work: "pods created and bound, per pod", Value: fmt.Sprintf("%.0f/s", rate), Ours: ours, Goal: "700/s"})
	b.add(decisions)
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
