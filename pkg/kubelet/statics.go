package kubelet

import (
	"context"
	"maps"
	"net/http"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// statics are the static pods of all sources as they were last read.
type statics struct {
	mu sync.Mutex
	// of is by source; a source not yet read has nil.
	of map[string]map[types.UID]*v1.Pod
}

// read tells whether every source has spoken.
func (s *statics) read() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		return false
	}
	for _, pods := range s.of {
		if pods == nil {
			return false
		}
	}
	return true
}

// watchStatic reads the sources of static pods which the configuration names.
func (k *Kubelet) watchStatic(ctx context.Context, wg *sync.WaitGroup, broken func(string)) {
	c := k.cfg.Kubelet
	sources := map[string]map[types.UID]*v1.Pod{}
	if c.StaticPodPath != "" {
		sources["file"] = nil
		f := &folder{path: c.StaticPodPath, node: k.cfg.NodeName, every: c.FileCheckFrequency.Duration, log: k.log, set: k.setStatic("file"), broken: broken}
		defer wg.Go(func() { f.run(ctx) })
	}
	if c.StaticPodURL != "" {
		sources["http"] = nil
		p := &page{url: c.StaticPodURL, header: http.Header(c.StaticPodURLHeader), node: k.cfg.NodeName, every: c.HTTPCheckFrequency.Duration, log: k.log, set: k.setStatic("http"), broken: broken}
		defer wg.Go(func() { p.run(ctx) })
	}
	k.statics.mu.Lock()
	k.statics.of = sources
	k.statics.mu.Unlock()
}

// setStatic answers what takes each reading of one source.
func (k *Kubelet) setStatic(source string) func(map[types.UID]*v1.Pod) {
	return func(now map[types.UID]*v1.Pod) {
		s := &k.statics
		s.mu.Lock()
		defer s.mu.Unlock()
		last := s.of[source]
		for uid := range last {
			if now[uid] == nil {
				k.pods.Remove(string(uid), nil)
			}
		}
		for uid, p := range now {
			if last[uid] == nil {
				k.pods.Update(p)
			}
		}
		s.of[source] = now
		all := map[types.UID]*v1.Pod{}
		for _, pods := range s.of {
			maps.Copy(all, pods)
		}
		k.mirrors.setStatic(all)
	}
}
