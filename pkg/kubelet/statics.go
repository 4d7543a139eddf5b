package kubelet

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
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
		f := &folder{path: c.StaticPodPath, node: k.cfg.NodeName, every: c.FileCheckFrequency.Duration, log: k.log, set: k.setStatic("file", broken), broken: broken}
		defer wg.Go(func() { f.run(ctx) })
	}
	if c.StaticPodURL != "" {
		sources["http"] = nil
		p := &page{url: c.StaticPodURL, header: http.Header(c.StaticPodURLHeader), node: k.cfg.NodeName, every: c.HTTPCheckFrequency.Duration, log: k.log, set: k.setStatic("http", broken), broken: broken}
		defer wg.Go(func() { p.run(ctx) })
	}
	k.statics.mu.Lock()
	k.statics.of = sources
	k.statics.mu.Unlock()
}

// runsForAPI tells whether the runtime has a pod with a UID which came from the API, while the API has not yet told of its
// pods. Only a manifest that names a UID itself can meet one.
func (k *Kubelet) runsForAPI(uid types.UID) bool {
	if k.client == nil || k.synced.Load() || !strings.Contains(string(uid), "-") {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := k.cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{cri.LabelPodUID: string(uid)}}})
	if err != nil {
		return false
	}
	for _, sb := range r.Items {
		if from := sb.Annotations[annotationSource]; from == "" || from == "api" {
			return true
		}
	}
	return false
}

// setStatic answers what takes each reading of one source. A static pod with the UID of a pod of the API, as a manifest has
// which was copied from one, waits until that is gone.
func (k *Kubelet) setStatic(source string, broken func(string)) func(map[types.UID]*v1.Pod) {
	said := map[types.UID]bool{}
	return func(now map[types.UID]*v1.Pod) {
		for uid, p := range now {
			other := k.pods.ByUID(string(uid))
			if other == nil && k.runsForAPI(uid) {
				other = &v1.Pod{}
			}
			if other != nil && !isStatic(other) {
				delete(now, uid)
				if !said[uid] {
					said[uid] = true
					broken(fmt.Sprintf("static pod %s/%s is broken: pod %s/%s of the API has the same uid %s; remove metadata.uid from the manifest", p.Namespace, p.Name, other.Namespace, other.Name, uid))
				}
			} else {
				delete(said, uid)
			}
		}
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
