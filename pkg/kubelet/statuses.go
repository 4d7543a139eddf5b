package kubelet

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/sextant-k8s/sextant/pkg/kubelet/api"
	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// statuses writes pod statuses to the API: one goroutine per pod with something to say, always the newest, at once.
type statuses struct {
	client  *api.Client
	metrics *metrics.Set
	log     *slog.Logger
	// mirror finds the API's stand-in of a static pod; nil when there is none yet.
	mirror func(pod *v1.Pod) *v1.Pod

	mu   sync.Mutex
	ctx  context.Context
	wg   sync.WaitGroup
	pods map[string]*statusOf
}

type statusOf struct {
	pod     *v1.Pod
	want    v1.PodStatus
	written *v1.PodStatus
	target  types.UID
	ended   bool
	writing bool
	again   bool
	// since is when the oldest word that is not written yet was given.
	since time.Time
}

func newStatuses(ctx context.Context, client *api.Client, m *metrics.Set, log *slog.Logger) *statuses {
	return &statuses{ctx: ctx, client: client, metrics: m, log: log, pods: map[string]*statusOf{}}
}

// Set takes a pod's newest status.
func (s *statuses) Set(pod *v1.Pod, st v1.PodStatus) {
	s.with(pod, func(p *statusOf) { p.want = st })
}

// Ended takes the last word of a deleted pod: after its status is written, the object goes.
func (s *statuses) Ended(pod *v1.Pod) {
	s.with(pod, func(p *statusOf) { p.ended = true })
}

// Forget drops what is remembered of a pod the API no longer has; a word that is being written is written still.
func (s *statuses) Forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, string(uid))
}

func (s *statuses) with(pod *v1.Pod, change func(*statusOf)) {
	if s.client == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := string(pod.UID)
	p := s.pods[uid]
	if p == nil {
		p = &statusOf{}
		s.pods[uid] = p
	}
	p.pod = pod
	change(p)
	if !p.again {
		p.since = time.Now()
	}
	p.again = true
	if !p.writing && s.ctx.Err() == nil {
		p.writing = true
		s.wg.Go(func() { s.write(uid, p) })
	}
}

func (s *statuses) write(uid string, p *statusOf) {
	wait := 100 * time.Millisecond
	for {
		s.mu.Lock()
		if !p.again || s.ctx.Err() != nil {
			p.writing = false
			s.mu.Unlock()
			return
		}
		p.again = false
		pod, want, written, ended, since := p.pod, p.want, p.written, p.ended, p.since
		s.mu.Unlock()
		target := pod
		if isStatic(pod) {
			target = s.mirror(pod)
			if target == nil {
				continue
			}
		}
		if written == nil || p.target != target.UID {
			written = &target.Status
		}
		err := s.patch(target, *written, want)
		if err == nil && ended {
			err = s.delete(target)
		}
		switch {
		case err == nil:
			wait = 100 * time.Millisecond
			s.mu.Lock()
			p.written, p.target = &want, target.UID
			s.metrics.Written(time.Since(since))
			if ended {
				delete(s.pods, uid)
				s.mu.Unlock()
				return
			}
			s.mu.Unlock()
		case apierrors.IsNotFound(err), apierrors.IsConflict(err):
			// Gone, or another pod of the same name: there is nobody left to tell.
			if ended || apierrors.IsConflict(err) {
				s.Forget(pod.UID)
				return
			}
		default:
			s.log.Debug("writing a pod's status", "pod", pod.Namespace+"/"+pod.Name, "err", err)
			s.mu.Lock()
			p.again = true
			s.mu.Unlock()
			select {
			case <-s.ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, 5*time.Second)
		}
	}
}

// patch writes the difference, which the API refuses when the pod is another one of that name.
func (s *statuses) patch(pod *v1.Pod, old, want v1.PodStatus) error {
	if apiequality.Semantic.DeepEqual(old, want) {
		return nil
	}
	a, err := json.Marshal(v1.Pod{Status: old})
	if err != nil {
		return err
	}
	b, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: pod.UID}, Status: want})
	if err != nil {
		return err
	}
	data, err := strategicpatch.CreateTwoWayMergePatch(a, b, v1.Pod{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	_, err = s.client.Pods.Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, data, "status")
	return err
}

func (s *statuses) delete(pod *v1.Pod) error {
	zero, uid := int64(0), pod.UID
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	return s.client.Pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
}
