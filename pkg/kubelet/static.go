package kubelet

import (
	"context"
	"crypto/md5" //nolint:gosec // a name, not a secret
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/staging/api/defaults"
)

// Annotations which mark where a pod came from.
const (
	annotationSource = "kubernetes.io/config.source"
	annotationHash   = "kubernetes.io/config.hash"
	annotationMirror = "kubernetes.io/config.mirror"
	annotationSeen   = "kubernetes.io/config.seen"
)

func isStatic(pod *v1.Pod) bool {
	s, ok := pod.Annotations[annotationSource]
	return ok && s != "api"
}

func isMirror(pod *v1.Pod) bool { _, ok := pod.Annotations[annotationMirror]; return ok }

// folder reads the static pods of a folder again and again. A broken file keeps its last good pod, and the others run.
type folder struct {
	path, node string
	every      time.Duration
	log        *slog.Logger
	set        func(map[types.UID]*v1.Pod)
	// broken tells of a file which holds no pod that can run.
	broken func(message string)

	last map[string]*v1.Pod
	said map[string]string
}

func (f *folder) run(ctx context.Context) {
	f.last, f.said = map[string]*v1.Pod{}, map[string]string{}
	// Looking at modification times is cheap; a second is what a person waits without wondering.
	every := min(f.every, time.Second)
	for ctx.Err() == nil {
		if pods, err := f.read(); err != nil {
			f.log.Warn("reading static pods", "path", f.path, "err", err)
		} else {
			f.set(pods)
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

func (f *folder) read() (map[types.UID]*v1.Pod, error) {
	st, err := os.Stat(f.path)
	if os.IsNotExist(err) {
		return map[types.UID]*v1.Pod{}, nil
	}
	if err != nil {
		return nil, err
	}
	files := []string{f.path}
	if st.IsDir() {
		entries, err := os.ReadDir(f.path)
		if err != nil {
			return nil, err
		}
		files = nil
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
				files = append(files, filepath.Join(f.path, e.Name()))
			}
		}
	}
	out, now := map[types.UID]*v1.Pod{}, map[string]*v1.Pod{}
	from := map[string]string{}
	for _, name := range files {
		pod, err := f.pod(name)
		if err != nil {
			pod = f.last[name]
		}
		if pod != nil {
			// Two pods of one identity would take turns; the first file has it.
			for _, id := range []string{"uid " + string(pod.UID), "name " + pod.Namespace + "/" + pod.Name} {
				if other := from[id]; other != "" && err == nil {
					err = fmt.Errorf("%s has a pod of the same %s", other, id)
				} else if other == "" {
					continue
				}
				pod = nil
				break
			}
		}
		if pod != nil {
			from["uid "+string(pod.UID)], from["name "+pod.Namespace+"/"+pod.Name] = name, name
			now[name] = pod
			out[pod.UID] = pod
		}
		switch {
		case err == nil:
			delete(f.said, name)
		case f.said[name] != err.Error():
			f.said[name] = err.Error()
			f.log.Error("a static pod is broken", "file", name, "err", err)
			f.broken(fmt.Sprintf("static pod %s is broken: %v", name, err))
		}
	}
	f.last = now
	return out, nil
}

func (f *folder) pod(name string) (*v1.Pod, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if len(raw) > 1<<20 {
		return nil, fmt.Errorf("%d bytes is too large for a pod", len(raw))
	}
	pod := &v1.Pod{}
	if err := yaml.Unmarshal(raw, pod); err != nil {
		return nil, err
	}
	if err := alone(pod); err != nil {
		return nil, err
	}
	finish(pod, "file", f.node, raw, name, f.last[name])
	return pod, nil
}

// alone tells why a manifest is not a pod which can run without the API.
func alone(pod *v1.Pod) error {
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return fmt.Errorf("want kind Pod of v1, got %s of %s", pod.Kind, pod.APIVersion)
	}
	if pod.Name == "" || len(pod.Spec.Containers) == 0 {
		return fmt.Errorf("a pod needs a name and a container")
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil || v.ConfigMap != nil || v.PersistentVolumeClaim != nil || v.Projected != nil {
			return fmt.Errorf("volume %q: static pods cannot refer to API objects", v.Name)
		}
	}
	return nil
}

// finish gives a static pod its name on this node, its identity (by content, so that a change is a new pod) and marks.
// source is "file" or "http", place the path or address; old is what stood there before, if anything did.
func finish(pod *v1.Pod, source, node string, raw []byte, place string, old *v1.Pod) {
	h := md5.New() //nolint:gosec // a name, not a secret
	kind := map[string]string{"file": "file", "http": "url"}[source]
	fmt.Fprintf(h, "host:%s\n%s:%s\n", node, kind, place)
	h.Write(raw)
	hash := hex.EncodeToString(h.Sum(nil))
	if pod.UID == "" {
		pod.UID = types.UID(hash)
	}
	if pod.Namespace == "" {
		pod.Namespace = v1.NamespaceDefault
	}
	pod.Name = pod.Name + "-" + node
	pod.Generation = 1
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[annotationSource] = source
	pod.Annotations[annotationHash] = hash
	pod.Annotations[annotationSeen] = time.Now().Format(time.RFC3339Nano)
	if old != nil && old.UID == pod.UID {
		pod.Annotations[annotationSeen] = old.Annotations[annotationSeen]
	}
	pod.Spec.NodeName = node
	// Nothing but the node itself ends a static pod.
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute})
	defaults.Pod(pod)
}
