package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// inTurn and atOnce are how many pods the kubelet starts.
const (
	inTurn = 10
	atOnce = 20
)

// benchKubelet runs all five daemons with one node. It measures what they hold when idle, and then pods: created with the
// API server, scheduled, run, seen Running by a watcher; deleted, seen gone. The floor asks the runtime for as much itself. Then
// the node is filled.
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
	bare, err := dialRuntime(b, n.socket)
	if err != nil {
		return err
	}
	ours := runner{n.kubelet, n.runtime, func(name string) error { return p.create(podsPath, runningPod(name)) },
		func(names int) error {
			return wait(seen, names, time.Minute, func(e event) bool { return e.Object.Status.Phase == "Running" })
		},
		func(name string) error { _, err := p.do("DELETE", podsPath+"/"+name, protobuf, nil); return err },
		func(names int) error {
			return wait(seen, names, time.Minute, func(e event) bool { return e.Type == "DELETED" })
		}}
	floor := runner{driver, n.runtime, bare.startPod, nil, bare.endPod, nil}
	one, bareOne, err := lives(ours, floor, inTurn, 1)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.kubelet.tail())
	}
	done := b.profile("pods", n.kubelet)
	many, bareMany, err := lives(ours, floor, 3, atOnce)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.kubelet.tail())
	}
	done()
	memory := n.kubelet.rss()
	b.add(row{Work: "pod create -> Running, one at a time", Ours: one.start, Floor: bareOne.start, By: byWall, Goal: "1.35x", Upstream: "0.50s"})
	b.add(row{Work: fmt.Sprintf("the same, %d at once, until all", atOnce), Ours: many.start, Floor: bareMany.start, By: byWall, Goal: "1.2x", Upstream: "2.7s"})
	b.add(row{Work: "pod delete -> gone, one at a time", Ours: one.end, Floor: bareOne.end, By: byWall})
	b.add(row{Work: fmt.Sprintf("the same, %d at once, until all", atOnce), Ours: many.end, Floor: bareMany.end, By: byWall})
	b.size(fmt.Sprintf("RSS, %d pods", atOnce), memory, "50 MB")
	if err := fullNode(b, p, n, seen, bare, ours, floor); err != nil {
		return fmt.Errorf("%w\n%s", err, n.kubelet.tail())
	}
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
		b.add(row{Work: d.name + ", idle", Value: fmt.Sprintf("%s (%s anon), %.1f%% core", mb(d.rss()), mb(d.anonymous()), used), Idle: d.rss(), Upstream: upstream[d.name]})
	}
	// The heaps of idle daemons say where their memory is.
	b.profile("idle", all...)()
	_, err := p.do("GET", "/readyz", "", nil)
	return err
}

const podsPath = "/api/v1/namespaces/bench/pods"

// runner is a way to start and end pods: through the API and the kubelet, or by bare CRI calls.
type runner struct {
	daemon, runtime *daemon
	// start and end ask for one pod; running and gone, when not nil, wait until so many are.
	start   func(name string) error
	running func(pods int) error
	end     func(name string) error
	gone    func(pods int) error
}

// life is what starting and ending took; one operation is all pods of a round.
type life struct{ start, end cost }

// lives does rounds of so many pods at once, by turns with ours and bare, and answers the medians. On a machine with other
// work to do, both meet the same weather.
func lives(ours, floor runner, rounds, pods int) (life, life, error) {
	var all [2][]life
	for r := range rounds {
		for i, how := range []runner{ours, floor} {
			l, err := how.round(fmt.Sprintf("pod-%d-%d-%d", pods, r, i), pods)
			if err != nil {
				return life{}, life{}, err
			}
			all[i] = append(all[i], l)
		}
	}
	return median(all[0]), median(all[1]), nil
}

func (r runner) round(prefix string, pods int) (l life, err error) {
	step := func(ask func(string) error, done func(int) error) (cost, error) {
		return meter(1, r.daemon, []*daemon{r.runtime}, func() error {
			err := parallel(pods, pods, func(i int) error { return ask(fmt.Sprintf("%s-%d", prefix, i)) })()
			if err == nil && done != nil {
				err = done(pods)
			}
			return err
		})
	}
	if l.start, err = step(r.start, r.running); err != nil {
		return l, fmt.Errorf("starting pods: %w", err)
	}
	// A program that has just begun does not heed a signal yet; as process one it would never see it.
	time.Sleep(200 * time.Millisecond)
	if l.end, err = step(r.end, r.gone); err != nil {
		return l, fmt.Errorf("ending pods: %w", err)
	}
	return l, nil
}

// median is that of each wall time, with the CPU time of the same round.
func median(all []life) life {
	of := func(pick func(life) cost) cost {
		slices.SortFunc(all, func(a, b life) int { return cmp.Compare(pick(a).Wall, pick(b).Wall) })
		return pick(all[len(all)/2])
	}
	return life{of(func(l life) cost { return l.start }), of(func(l life) cost { return l.end })}
}

// runningPod is a pod that runs until it is told to end, with the volume that every pod has: its service account's token.
func runningPod(name string) object {
	return object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name, "labels": object{"app": "bench"}},
		"spec": object{"restartPolicy": "Never", "containers": []object{{
			"name": "main", "image": pauseImage, "imagePullPolicy": "IfNotPresent",
			"resources": object{"requests": object{"cpu": "10m", "memory": "8Mi"}},
		}}},
	}
}
