package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// creators is how many clients the floor of the controllers has.
const creators = 32

// benchControllers scales a Deployment up and down again; nobody schedules or runs its pods. The floor creates, and then
// deletes, as many pods by concurrent clients that need not think.
func benchControllers(b *bench) error {
	p, err := startPlane(b)
	if err != nil {
		return err
	}
	m, err := startControllers(b, p)
	if err != nil {
		return err
	}
	err = p.create("/apis/apps/v1/namespaces/bench/deployments", object{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": "web"},
		"spec": object{"replicas": 0, "selector": object{"matchLabels": object{"app": "web"}}, "template": object{
			"metadata": object{"labels": object{"app": "web"}}, "spec": waitingPod("")["spec"],
		}},
	})
	if err != nil {
		return err
	}
	err = await("the replica set", 20*time.Second, func() error {
		text, err := p.do("GET", "/apis/apps/v1/namespaces/bench/replicasets", jsonType, nil)
		if err == nil && !contains(text, `"name":"web-`) {
			err = fmt.Errorf("there is none")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, m.tail())
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch, err := p.again().follow(ctx, "/api/v1/namespaces/bench/pods?")
	if err != nil {
		return err
	}
	var seen counter
	go seen.read(watch)
	n, already := b.replicas, 0
	scale := func(to int) func() error {
		return func() error {
			if err := p.patch("/apis/apps/v1/namespaces/bench/deployments/web/scale", fmt.Sprintf(`{"spec":{"replicas":%d}}`, to)); err != nil {
				return err
			}
			already += n
			return seen.until(already, time.Minute)
		}
	}
	var costs [2]cost
	var memory int
	for i, step := range []struct {
		name string
		to   int
	}{{"up", n}, {"down", 0}} {
		time.Sleep(time.Second)
		done := b.profile(step.name, m, p.api)
		if costs[i], err = meter(n, m, p.servers(), scale(step.to)); err != nil {
			return fmt.Errorf("scaling %s: %w\n%s", step.name, err, m.tail())
		}
		done()
		if i == 0 {
			memory = m.rss()
		}
	}
	m.stop()
	path := "/api/v1/namespaces/bench/pods"
	created, err := meter(n, driver, p.servers(), parallel(n, creators, func(i int) error {
		return p.create(path, waitingPod(fmt.Sprintf("floor%05d", i)))
	}))
	if err != nil {
		return err
	}
	deleted, err := meter(n, driver, p.servers(), parallel(n, creators, func(i int) error {
		_, err := p.do("DELETE", fmt.Sprintf("%s/floor%05d", path, i), protobuf, nil)
		return err
	}))
	if err != nil {
		return err
	}
	rate := func(ours, floor cost) string {
		return fmt.Sprintf("%.0f/s (floor %.0f/s)", 1/ours.Wall.Seconds(), 1/floor.Wall.Seconds())
	}
	b.add(row{Work: fmt.Sprintf("Deployment 0 -> %d, per pod", n), Value: rate(costs[0], created), Ours: costs[0], Floor: created, By: byWall,
		Goal: "800/s", Upstream: "20/s, 230/s"})
	b.add(row{Work: fmt.Sprintf("Deployment %d -> 0, per pod", n), Value: rate(costs[1], deleted), Ours: costs[1], Floor: deleted, By: byWall, Goal: "800/s"})
	b.size(fmt.Sprintf("RSS, %d pods", n), memory, "")
	return nil
}

// startControllers starts the controller-manager and waits until it has made the namespace's service account.
func startControllers(b *bench, p *plane, flags ...string) (*daemon, error) {
	config, err := p.kubeconfig("controller-manager")
	if err != nil {
		return nil, err
	}
	m, err := b.start("controller-manager", "https://127.0.0.1:10257", append([]string{
		filepath.Join(b.bin, "controller-manager"), "--kubeconfig", config,
		"--allocate-node-cidrs", "--cluster-cidr", "10.240.0.0/12", "--root-ca-file", filepath.Join(b.dir, "certs", "apiserver.crt"),
	}, flags...)...)
	if err != nil {
		return nil, err
	}
	err = await("the service account", 20*time.Second, func() error {
		_, err := p.do("GET", "/api/v1/namespaces/bench/serviceaccounts/default", protobuf, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, m.tail())
	}
	return m, nil
}
