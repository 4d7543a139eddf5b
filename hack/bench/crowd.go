package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// A crowd: many pods, many who follow them.
const (
	crowdFew       = 20000 // pods while informers start
	crowdPods      = 100000
	crowdInformers = 1000  // each on a connection of its own, as programs are
	crowdWatchers  = 10000 // most of one node, as kubelets are, and each fifth of everything
	crowdTurns     = 20    // pods changed while all watch
)

// benchInformers measures many informers that start at once.
func benchInformers(b *bench) error {
	_, c, err := startCrowd(b)
	if err != nil {
		return err
	}
	return c.Close()
}

// startCrowd starts an apiserver with some pods, and many informers on it; it answers a client of its etcd.
func startCrowd(b *bench) (*plane, *clientv3.Client, error) {
	p, err := startPlane(b)
	if err != nil {
		return nil, nil, err
	}
	if err := p.account(); err != nil {
		return nil, nil, err
	}
	if err := p.create("/api/v1/namespaces/bench/pods", storedPod(0, crowdPods)); err != nil {
		return nil, nil, err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{etcdURL}, DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, nil, fmt.Errorf("reaching etcd: %w", err)
	}
	if err := errors.Join(multiply(p, c, 1, crowdFew, spread), informersAtOnce(b, p)); err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return p, c, nil
}

// benchCrowd measures what many pods and many clients at once cost the apiserver. It takes minutes, so that it runs only by its name.
func benchCrowd(b *bench) error {
	p, c, err := startCrowd(b)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is in flight
	if err := multiply(p, c, crowdFew, crowdPods, spread); err != nil {
		return err
	}
	if err := again(b, p, c); err != nil {
		return err
	}
	return manyWatch(b, p)
}

// spread has the crowd's pods lie on their nodes and in their parts.
func spread(i int, pod *corev1.Pod) {
	pod.Labels["part"] = fmt.Sprint(i % (crowdPods / 50))
	pod.Spec.NodeName = fmt.Sprintf("node-%d", i%crowdWatchers)
}

// multiply stores pods from to to by putting copies of the first into etcd, each shaped, and waits until the apiserver has them.
func multiply(p *plane, c *clientv3.Client, from, to int, shape func(i int, pod *corev1.Pod)) error {
	const prefix = "/registry/pods/bench/"
	r, err := c.Get(context.Background(), prefix+"p00000")
	if err != nil || len(r.Kvs) != 1 {
		return fmt.Errorf("reading the first pod from etcd: %d found, %w", len(r.Kvs), err)
	}
	magic := []byte("k8s\x00")
	var wrapped runtime.Unknown
	var pod corev1.Pod
	if err := errors.Join(wrapped.Unmarshal(bytes.TrimPrefix(r.Kvs[0].Value, magic)), pod.Unmarshal(wrapped.Raw)); err != nil {
		return fmt.Errorf("reading the first pod: %w", err)
	}
	const atOnce = 64 // operations of one transaction
	var last int64
	for at := from; at < to; at += atOnce {
		var ops []clientv3.Op
		for i := at; i < min(at+atOnce, to); i++ {
			pod.Name, pod.UID = fmt.Sprintf("p%05d", i), types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
			shape(i, &pod)
			if wrapped.Raw, err = pod.Marshal(); err != nil {
				return err
			}
			value, err := wrapped.Marshal()
			if err != nil {
				return err
			}
			ops = append(ops, clientv3.OpPut(prefix+pod.Name, string(magic)+string(value)))
		}
		t, err := c.Txn(context.Background()).Then(ops...).Commit()
		if err != nil {
			return fmt.Errorf("storing pods: %w", err)
		}
		last = t.Header.Revision
	}
	return await(fmt.Sprintf("the apiserver to have revision %d", last), time.Minute, func() error {
		_, err := p.do("GET", fmt.Sprintf("/api/v1/namespaces/bench/pods/p%05d", to-1), protobuf, nil)
		return err
	})
}

// informersAtOnce starts informers all at the same moment, as after an outage, and waits until each has everything.
func informersAtOnce(b *bench, p *plane) error {
	time.Sleep(5 * time.Second) // what storing the pods left behind is collected
	before, beforeAll, cpu, begun := p.api.anonymous(), p.api.rss(), p.api.cpu(), time.Now()
	var most, mostAll atomic.Int64
	watching := make(chan struct{})
	go func() {
		for {
			select {
			case <-watching:
				return
			case <-time.After(20 * time.Millisecond):
				most.Store(max(most.Load(), int64(p.api.anonymous())))
				mostAll.Store(max(mostAll.Load(), int64(p.api.rss())))
			}
		}
	}()
	var got atomic.Int64
	done := b.profile("informers", p.api)
	err := parallel(crowdInformers, crowdInformers, func(int) error {
		n, err := p.apart().initial("/api/v1/pods")
		got.Add(int64(n))
		return err
	})()
	close(watching)
	took := time.Since(begun)
	done()
	if err != nil {
		return fmt.Errorf("an informer failed: %w", err)
	}
	b.add(row{
		Work: fmt.Sprintf("%d informers at once on %d pods, until all have all; each", crowdInformers, crowdFew),
		Ours: cost{CPU: (p.api.cpu() - cpu) / crowdInformers, Wall: took / crowdInformers},
	})
	b.add(row{Work: "  of the time, RSS before and at most", Value: mb(beforeAll) + ", " + mb(int(mostAll.Load())), Goal: "twice"})
	b.add(row{Work: "  of it anonymous", Value: mb(before) + ", " + mb(int(most.Load()))})
	if n := got.Load() / crowdInformers; n < crowdFew*1000 {
		return fmt.Errorf("an informer got %d bytes", n)
	}
	return nil
}

// apart is the same user on a connection of its own that holds little of what it has not read: there are many of these.
func (c *client) apart() *client {
	a := c.again()
	t := a.http.Transport.(*http.Transport)
	t.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 256 << 10, MaxReceiveBufferPerConnection: 256 << 10}
	return a
}

// initial reads the initial events of a watch to their end, and answers how many bytes they were.
func (c *client) initial(path string) (int, error) {
	defer c.http.CloseIdleConnections()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	resp, err := c.open(ctx, "GET", path+"?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", protobuf+";stream=watch", nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return 0, fmt.Errorf("%d %s", resp.StatusCode, text)
	}
	end := []byte("k8s.io/initial-events-end")
	buf, kept, all := make([]byte, 32<<10), 0, 0
	for {
		n, err := resp.Body.Read(buf[kept:])
		all += n
		if bytes.Contains(buf[:kept+n], end) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		kept = copy(buf, buf[max(0, kept+n-len(end)):kept+n])
	}
}

// again starts the apiserver anew on all pods. The floor is a client of etcd reading the same keys in the same pages.
func again(b *bench, p *plane, c *clientv3.Client) error {
	least, err := meter(1, driver, []*daemon{p.etcd}, func() error {
		from, end := "/registry/pods/", clientv3.GetPrefixRangeEnd("/registry/pods/")
		for {
			r, err := c.Get(context.Background(), from, clientv3.WithRange(end), clientv3.WithLimit(2000))
			if err != nil || !r.More {
				return err
			}
			from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
		}
	})
	if err != nil {
		return err
	}
	p.api.stop()
	if err := p.serve(); err != nil {
		return err
	}
	b.add(row{Work: fmt.Sprintf("start to ready, %d pods", crowdPods), Ours: cost{CPU: p.api.cpu(), Wall: p.ready}, Floor: least, By: byWall, Goal: "5s"})
	time.Sleep(10 * time.Second) // the garbage of the start is given back
	b.size(fmt.Sprintf("anonymous RSS, %d pods", crowdPods), p.api.anonymous(), "")
	return nil
}

// manyWatch opens many watches and changes some pods: each change goes to those of its node and those of everything.
func manyWatch(b *bench, p *plane) error {
	ctx, cancel := context.WithCancel(context.Background())
	var all counter
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	const ofAll = crowdWatchers / 5
	var on *client
	for i := range crowdWatchers {
		if i%streams == 0 {
			on = p.apart()
		}
		path := "/api/v1/pods?"
		if i >= ofAll {
			path = fmt.Sprintf("/api/v1/pods?fieldSelector=spec.nodeName%%3Dnode-%d&", i)
		}
		body, err := on.follow(ctx, path)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer body.Close()      //nolint:errcheck // only read
			all.readBy(body, 4<<10) // there are many
		})
	}
	time.Sleep(5 * time.Second)
	b.size(fmt.Sprintf("RSS, %d pods and %d watchers", crowdPods, crowdWatchers), p.api.rss(), "1500 MB")
	const events = crowdTurns * (ofAll + 1)
	done := b.profile("manywatch", p.api)
	ours, err := meter(events, p.api, nil, func() error {
		for i := range crowdTurns {
			if err := p.patch(podPath(ofAll+i), fmt.Sprintf(`{"metadata":{"labels":{"turn":"%d"}}}`, i)); err != nil {
				return err
			}
		}
		return all.until(events, time.Minute)
	})
	done()
	if err != nil {
		return err
	}
	b.add(row{Work: fmt.Sprintf("watch event to each of %d of them", ofAll+1), Ours: ours, Goal: "7us cpu"})
	b.size("RSS at most", memory(p.api.cmd.Process.Pid, "VmHWM:"), "1500 MB")
	return nil
}
