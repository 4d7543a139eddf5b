package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// benchAPIServer measures start, memory and the verbs, one request at a time from one client.
func benchAPIServer(b *bench) error {
	p, err := startPlane(b)
	if err != nil {
		return err
	}
	floor, bare, err := startFloor(b)
	if err != nil {
		return err
	}
	b.add(row{Work: "start to ready", Ours: cost{CPU: p.api.cpu(), Wall: p.ready}, Goal: "0.5s", Upstream: "2.5-3.3s"})
	// Five seconds after it is ready the apiserver gives the garbage of its start back to the kernel; before that nothing is idle.
	time.Sleep(8 * time.Second)
	idle := p.api.anonymous()
	b.add(row{Work: "RSS idle, etcd apart", Value: mb(p.api.rss()), Goal: "60 MB", Upstream: "280 MB"})
	if err := p.account(); err != nil {
		return err
	}
	created, err := fillPods(b, p)
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	// Pages of the program file are read as they are needed, and no pod lies in them.
	b.add(row{Work: "anonymous RSS per stored pod of 2 KB", Value: fmt.Sprintf("%.1f KB", float64(p.api.anonymous()-idle)/float64(b.pods)/1024), Goal: "6 KB", Upstream: "38 KB"})
	if err := reads(b, p, floor, bare); err != nil {
		return err
	}
	if err := fanOut(b, p, floor, bare); err != nil {
		return err
	}
	stored, err := p.do("GET", podPath(0), protobuf, nil)
	if err != nil {
		return err
	}
	least, err := bareEtcd(p, stored, 1000)
	if err != nil {
		return err
	}
	b.add(row{Work: "create pod", Ours: created, Floor: least.create, By: byAll, Goal: "0.4ms cpu", Upstream: "1.5ms cpu"})
	if err := writes(b, p, least); err != nil {
		return err
	}
	return audited(b, p, least)
}

// audited measures the dearest verbs once more while every request is written into an audit log.
func audited(b *bench, p *plane, least bareWrites) error {
	p.api.stop()
	policy := filepath.Join(b.dir, "audit.yaml")
	if err := os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"), 0o600); err != nil {
		return err
	}
	log := filepath.Join(b.dir, "audit.log")
	if err := p.serve("--audit-policy-file", policy, "--audit-log-path", log); err != nil {
		return err
	}
	if err := p.create("/api/v1/namespaces/bench/configmaps", named("first")); err != nil { // the first write reads the schema of all kinds
		return err
	}
	n := min(b.more(1000), b.pods)
	for _, w := range []struct {
		work  string
		floor cost
		by    compare
		goal  string
		f     func(i int) error
	}{
		{"create pod, audited", least.create, byAll, "0.4ms cpu", func(i int) error {
			pod := storedPod(i, b.pods)
			pod["metadata"].(object)["name"] = fmt.Sprintf("audited-%d", i)
			return p.create("/api/v1/namespaces/bench/pods", pod)
		}},
		{"GET pod, audited", cost{}, byCPU, "85us cpu", func(i int) error {
			_, err := p.do("GET", fmt.Sprintf("/api/v1/namespaces/bench/pods/audited-%d", i), protobuf, nil)
			return err
		}},
		{"patch a pod's status, audited", least.update, byAll, "0.5ms cpu", func(i int) error {
			return p.patch(fmt.Sprintf("/api/v1/namespaces/bench/pods/audited-%d/status", i), fmt.Sprintf(`{"status":{"phase":"Running","podIP":"10.1.%d.%d"}}`, i/250, i%250))
		}},
	} {
		done := b.profile("audited-"+strings.Fields(w.work)[0], p.api)
		ours, err := meter(n, p.api, []*daemon{p.etcd}, times(n, w.f))
		done()
		if err != nil {
			return err
		}
		b.add(row{Work: w.work, Ours: ours, Floor: w.floor, By: w.by, Goal: w.goal})
	}
	// What was written down is written beside the requests, a moment later.
	return await("the audit log", 10*time.Second, func() error {
		text, err := os.ReadFile(log)
		if lines := bytes.Count(text, []byte{'\n'}); err == nil && lines < 2*3*n {
			err = fmt.Errorf("%d lines for %d requests of two stages", lines, 3*n)
		}
		return err
	})
}

func podPath(i int) string { return fmt.Sprintf("/api/v1/namespaces/bench/pods/p%05d", i) }

// fillPods creates the pods that are stored, and answers what one took.
func fillPods(b *bench, p *plane) (cost, error) {
	done := b.profile("create", p.api)
	defer done()
	return meter(b.pods, p.api, []*daemon{p.etcd}, times(b.pods, func(i int) error {
		return p.create("/api/v1/namespaces/bench/pods", storedPod(i, b.pods))
	}))
}

// storedPod is a pod of about 2 KB on a node; part tells 50 of them from the rest.
func storedPod(i, of int) object {
	groups := max(of/50, 1)
	env := make([]object, 12)
	for n := range env {
		env[n] = object{"name": fmt.Sprintf("SETTING_%d", n), "value": "a value of about forty characters, or so"}
	}
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": fmt.Sprintf("p%05d", i), "labels": object{"app": "bench", "part": fmt.Sprint(i % groups)}},
		"spec": object{
			"nodeName": fmt.Sprintf("node-%d", i%groups),
			"containers": []object{{
				"name": "main", "image": "registry.example/app:1.2.3", "env": env,
				"resources": object{"requests": object{"cpu": "100m", "memory": "64Mi"}},
			}},
		},
	}
}

// reads measures get and list, each beside the bare server giving back the same bytes.
func reads(b *bench, p *plane, floor *daemon, bare *client) error {
	for _, r := range []struct {
		name, work, path, accept string
		n                        int
		goal, upstream           string
	}{
		{"get", "GET pod", "", protobuf, 4000, "85us cpu", "430us cpu"},
		{"list", fmt.Sprintf("LIST %d pods, protobuf", b.pods), "/api/v1/pods", protobuf, 30, "20ms cpu", "100ms cpu"},
		{"listjson", fmt.Sprintf("LIST %d pods, JSON", b.pods), "/api/v1/pods", jsonType, 30, "32ms cpu", "190ms cpu"},
		{"label", "LIST by label, 50 of them", "/api/v1/pods?labelSelector=part%3D7", protobuf, 500, "0.5ms cpu", "4.9ms cpu"},
		{"field", "LIST by node, 50 of them", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7", protobuf, 500, "", ""},
	} {
		path := func(i int) string {
			if r.path == "" {
				return podPath(i % b.pods)
			}
			return r.path
		}
		body, err := p.do("GET", path(0), r.accept, nil)
		if err != nil {
			return err
		}
		done := b.profile(r.name, p.api)
		n := b.more(r.n)
		ours, err := meter(n, p.api, []*daemon{p.etcd}, times(n, func(i int) error {
			_, err := p.do("GET", path(i), r.accept, nil)
			return err
		}))
		done()
		if err != nil {
			return err
		}
		least, err := bareRead(floor, bare, body, r.n)
		if err != nil {
			return err
		}
		b.add(row{Work: r.work, Ours: ours, Floor: least, By: byCPU, Goal: r.goal, Upstream: r.upstream})
	}
	return nil
}

// writes measures patch and delete, each beside the transaction of etcd that it needs.
func writes(b *bench, p *plane, least bareWrites) error {
	n := min(b.more(1000), b.pods)
	for _, w := range []struct {
		name, work     string
		floor          cost
		goal, upstream string
		f              func(i int) error
	}{
		{"patch", "patch a pod's status", least.update, "0.5ms cpu", "2.4ms cpu", func(i int) error {
			return p.patch(podPath(i)+"/status", fmt.Sprintf(`{"status":{"phase":"Running","podIP":"10.1.%d.%d"}}`, i/250, i%250))
		}},
		{"delete", "delete pod", least.remove, "0.4ms cpu", "1.7ms cpu", func(i int) error {
			_, err := p.do("DELETE", podPath(i)+"?gracePeriodSeconds=0", protobuf, nil)
			return err
		}},
	} {
		done := b.profile(w.name, p.api)
		ours, err := meter(n, p.api, []*daemon{p.etcd}, times(n, w.f))
		done()
		if err != nil {
			return err
		}
		b.add(row{Work: w.work, Ours: ours, Floor: w.floor, By: byAll, Goal: w.goal, Upstream: w.upstream})
	}
	return nil
}
