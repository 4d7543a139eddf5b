package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	protobuf = "application/vnd.kubernetes.protobuf"
	watchers = 300
)

// apiserver measures the verbs.
func apiserver(c *cluster, pods int) ([]row, error) {
	ctx := context.Background()
	pid := c.api.Process.Pid
	rows := []row{{"start to ready", c.ready.Round(time.Millisecond).String(), "", "0.5 s"}}
	time.Sleep(2 * time.Second)
	idle := rss(pid)
	rows = append(rows, row{"RSS idle", mb(idle), "", "60 MB"})
	if _, err := c.do(ctx, "POST", "/api/v1/namespaces", "", []byte(`{"metadata":{"name":"bench"}}`)); err != nil {
		return nil, err
	}
	if _, err := c.do(ctx, "POST", "/api/v1/namespaces/bench/serviceaccounts", "", []byte(`{"metadata":{"name":"default"}}`)); err != nil {
		return nil, err
	}
	per := func(n int, f func(i int) error) (string, error) {
		before := cpu(pid)
		begun := time.Now()
		for i := range n {
			if err := f(i); err != nil {
				return "", err
			}
		}
		used, took := cpu(pid)-before, time.Since(begun)
		return fmt.Sprintf("%s cpu, %s", us(used, n), us(took, n)), nil
	}
	measure := func(what, floor, goal string, n int, f func(i int) error) error {
		text, err := per(n, f)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		rows = append(rows, row{what, text, floor, goal})
		return nil
	}
	name := func(i int) string { return fmt.Sprintf("/api/v1/namespaces/bench/pods/p%05d", i) }
	err := measure("create pod", "", "400us cpu", pods, func(i int) error {
		_, err := c.do(ctx, "POST", "/api/v1/namespaces/bench/pods", protobuf, pod(i, pods))
		return err
	})
	if err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second)
	rows = append(rows, row{"RSS per stored pod", fmt.Sprintf("%.1f KB", float64(rss(pid)-idle)/float64(pods)/1024), "", "6 KB"})
	one, err := c.do(ctx, "GET", name(0), protobuf, nil)
	if err != nil {
		return nil, err
	}
	floor, err := bare(one, 3000)
	if err != nil {
		return nil, err
	}
	reads := []struct {
		what, path, accept, floor, goal string
		n                               int
	}{
		{"GET pod", "", protobuf, floor, "85us cpu", 5000},
		{"LIST all, protobuf", "/api/v1/pods", protobuf, "", "20ms cpu", 20},
		{"LIST all, JSON", "/api/v1/pods", "application/json", "", "32ms cpu", 20},
		{"LIST by label, 50", "/api/v1/pods?labelSelector=part%3D7", protobuf, "", "500us cpu", 200},
		{"LIST by node, 50", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7", protobuf, "", "", 200},
	}
	for _, r := range reads {
		err := measure(r.what, r.floor, r.goal, r.n, func(i int) error {
			path := r.path
			if path == "" {
				path = name(i % pods)
			}
			_, err := c.do(ctx, "GET", path, r.accept, nil)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	fan, err := fanOut(c, name)
	if err != nil {
		return nil, err
	}
	rows = append(rows, fan)
	err = measure("patch status", "", "500us cpu", 1000, func(i int) error {
		_, err := c.do(ctx, "PATCH", name(i)+"/status", protobuf, fmt.Appendf(nil, `{"status":{"phase":"Running","podIP":"10.1.%d.%d"}}`, i/250, i%250))
		return err
	})
	if err != nil {
		return nil, err
	}
	return rows, measure("delete pod", "", "400us cpu", 1000, func(i int) error {
		_, err := c.do(ctx, "DELETE", name(i)+"?gracePeriodSeconds=0", protobuf, nil)
		return err
	})
}

// pod is a pod of about 2 KB; part tells 50 of them from the rest.
func pod(i, of int) []byte {
	groups := max(of/50, 1)
	env := make([]map[string]string, 12)
	for n := range env {
		env[n] = map[string]string{"name": fmt.Sprintf("SETTING_%d", n), "value": strings.Repeat("v", 40)}
	}
	b, _ := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": fmt.Sprintf("p%05d", i), "labels": map[string]string{"app": "bench", "part": fmt.Sprint(i % groups)}},
		"spec": map[string]any{
			"nodeName": fmt.Sprintf("node-%d", i%groups),
			"containers": []any{map[string]any{
				"name": "main", "image": "registry.example/app:1.2.3", "env": env,
				"resources": map[string]any{"requests": map[string]string{"cpu": "100m", "memory": "64Mi"}},
			}},
		},
	})
	return b
}

// fanOut has many watchers follow all pods, and changes some.
func fanOut(c *cluster, name func(int) string) (row, error) {
	const changes = 50
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var seen atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	list, err := c.do(ctx, "GET", "/api/v1/pods?limit=1", "application/json", nil)
	if err != nil {
		return row{}, err
	}
	var l struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(list, &l); err != nil {
		return row{}, err
	}
	clients := make([]*cluster, 6) // a connection carries a hundred streams at most
	for i := range clients {
		clients[i] = &cluster{url: c.url, client: newClient()}
	}
	for i := range watchers {
		resp, err := clients[i%len(clients)].open(ctx, "GET", "/api/v1/pods?watch=1&resourceVersion="+l.Metadata.ResourceVersion, "application/json", nil)
		if err != nil {
			return row{}, err
		}
		wg.Go(func() {
			defer resp.Body.Close() //nolint:errcheck // only read
			count(resp.Body, &seen)
		})
	}
	before, begun := cpu(c.api.Process.Pid), time.Now()
	for i := range changes {
		if _, err := c.do(ctx, "PATCH", name(i), protobuf, fmt.Appendf(nil, `{"metadata":{"labels":{"turn":"%d"}}}`, i)); err != nil {
			return row{}, err
		}
	}
	for seen.Load() < watchers*changes {
		if time.Since(begun) > 30*time.Second {
			return row{}, fmt.Errorf("only %d of %d events came in 30 s", seen.Load(), watchers*changes)
		}
		time.Sleep(time.Millisecond)
	}
	used, took := cpu(c.api.Process.Pid)-before, time.Since(begun)
	return row{fmt.Sprintf("watch event, %d watchers", watchers), fmt.Sprintf("%s cpu, %s", us(used, watchers*changes), us(took, watchers*changes)), "", "7us cpu"}, nil
}

// count counts the lines of a stream: an event each.
func count(r io.Reader, seen *atomic.Int64) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		seen.Add(int64(strings.Count(string(buf[:n]), "\n")))
		if err != nil {
			return
		}
	}
}

func us(d time.Duration, n int) string {
	return fmt.Sprintf("%dus", d.Microseconds()/int64(n))
}

func mb(n int) string { return fmt.Sprintf("%d MB", n>>20) }
