// Package lifecycle runs the pods of a node.
//
// Flow: Manager.Update (a pod from a source) and Manager.Wake (the runtime, a probe, a timer) -> the pod's worker ->
// observe the runtime -> decide -> apply -> publish the status. Every pod has one worker goroutine, which alone decides;
// starting is one goroutine at a time per pod, each kill and each probe has its own. All of them end before Run returns.
package lifecycle

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/sextant-k8s/sextant/pkg/kubelet/credential"
	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// Volumes makes and unmakes what a pod mounts.
type Volumes interface {
	// Setup is idempotent; a second call refreshes what the API changed.
	Setup(ctx context.Context, pod *v1.Pod) error
	// HostPath is where a volume of the pod stands on the node.
	HostPath(pod *v1.Pod, volume string) (string, error)
	// SubPath makes a path below a volume safely mountable and returns it.
	SubPath(pod *v1.Pod, container string, index int, volume, sub string) (string, error)
	// EnvFile reads the variables a container left in a file of a volume; one that is not there is os.ErrNotExist.
	EnvFile(pod *v1.Pod, volume, path string) (map[string]string, error)
	Teardown(uid string) error
	PodDir(uid string) string
}

// Cgroups makes and unmakes pod cgroups.
type Cgroups interface {
	Create(pod *v1.Pod) error
	// Resize writes a running pod's limits: with grow only those which are larger than what stands.
	Resize(pod *v1.Pod, grow bool) error
	// Parent is the cgroup in which the runtime shall make the pod's own.
	Parent(pod *v1.Pod) string
	Destroy(uid string) error
}

// Objects reads the API objects pods refer to.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	// RuntimeHandler is the runtime's handler name for a RuntimeClass.
	RuntimeHandler(ctx context.Context, class string) (string, error)
	// Services are those of a namespace, and the master's own.
	Services(ctx context.Context, namespace string) ([]*v1.Service, error)
}

// Statuses takes a pod's new status, and the last word of a pod that ended.
type Statuses interface {
	// Set must not block.
	Set(pod *v1.Pod, st v1.PodStatus)
	// Ended: the deleted pod's containers, volumes and cgroup are gone.
	Ended(pod *v1.Pod)
	// Forget: so are those of a pod that the API no longer has; nobody will be told any more.
	Forget(uid types.UID)
}

// Config is what a Manager works with; all fields are needed.
type Config struct {
	CRI     *cri.Client
	Volumes Volumes
	Cgroups Cgroups
	// Resources are the node's devices, claims, CPUs and memory.
	Resources Resources
	Objects   Objects
	// Keyring opens registries; Pulled tells who may use what it brought.
	Keyring  *credential.Keyring
	Pulled   *credential.Records
	Statuses Statuses
	Recorder record.EventRecorder
	Log      *slog.Logger
	// Metrics may be nil, which counts nothing.
	Metrics *metrics.Set

	NodeName string
	HostIPs  []string
	// Runtime is the runtime's name, with which IDs of containers begin in statuses; "" while it is not known.
	Runtime     func() string
	LogDir      string
	Allocatable func() v1.ResourceList
	Resolver    Resolver
	// Sysctls are those of every pod which does not say otherwise.
	Sysctls map[string]string
	// MaxBackoff is the longest pause between crashes of a container.
	MaxBackoff time.Duration
	// UserRange is how many users a pod has of its own, a multiple of 65536.
	UserRange uint32
	// Pace bounds pulls per second; nil does not.
	Pace *rate.Limiter
	// Refresh is how often volumes take in what the API has changed.
	Refresh time.Duration
	// ParallelPulls is the most image pulls at once; 0 is no limit.
	ParallelPulls int
	// Admit tells why a new pod cannot run here, nil when it can.
	Admit func(pod *v1.Pod, active []*v1.Pod) *Failure
	// Room tells why a pod's new size cannot be granted: "Infeasible" never, "Deferred" not now; nil when it can.
	Room func(pod *v1.Pod, active []*v1.Pod) *Failure
}

// Manager holds the node's pods.
type Manager struct {
	cfg Config

	images *images

	// networked: the first pod with a network of its own has come to run.
	networked sync.Once

	// starting is how many start jobs are under way.
	starting atomic.Int32

	ooms *ooms

	// users is held while a range of users is given out, room while a pod is let in or grows.
	users, room sync.Mutex

	mu      sync.Mutex
	ctx     context.Context
	wg      sync.WaitGroup
	workers map[string]*worker
	// known are the pods which the runtime had when it was last asked for all; nil before that. past are those whose worker has
	// ended, and after how many such lists that is forgotten.
	known map[string]bool
	past  map[string]int
}

// New makes a Manager with no pods.
func New(cfg Config) *Manager {
	m := &Manager{cfg: cfg, workers: map[string]*worker{}, past: map[string]int{}, ooms: newOOMs()}
	m.images = &images{cri: cfg.CRI, records: cfg.Pulled, pace: cfg.Pace, pulling: map[string]*pull{}, backoff: map[string]*imageBackoff{}}
	if cfg.ParallelPulls > 0 {
		m.images.slots = make(chan struct{}, cfg.ParallelPulls)
	}
	return m
}

// Start gives the manager the context its goroutines live in; Update and Wake work from then on.
func (m *Manager) Start(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = ctx
	m.wg.Go(func() { m.ooms.watch(ctx) })
}

// Wait returns after every worker has ended, which they do with the context.
func (m *Manager) Wait() { m.wg.Wait() }

// Update gives a pod as its source has it now.
func (m *Manager) Update(pod *v1.Pod) {
	uid := string(pod.UID)
	m.mu.Lock()
	w := m.workers[uid]
	if w == nil {
		if m.ctx.Err() != nil {
			m.mu.Unlock()
			return
		}
		w = newWorker(m, pod, m.unknownLocked(uid))
		m.workers[uid] = w
		m.wg.Go(func() { w.run(m.ctx) })
	}
	m.mu.Unlock()
	w.update(pod)
}

// Remove ends a pod whose source no longer has it. last is the pod as the source had it when it went, which knows how
// much grace was given; nil when the source does not say.
func (m *Manager) Remove(uid string, last *v1.Pod) {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w != nil {
		w.remove(last)
	}
}

// Wake makes a pod's worker look at the runtime again.
func (m *Manager) Wake(uid string) {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w != nil {
		w.poke(true)
	}
}

// Has tells whether the pod has a worker.
func (m *Manager) Has(uid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.workers[uid] != nil
}

// Starting tells whether any pod's start is under way.
func (m *Manager) Starting() bool { return m.starting.Load() > 0 }

// Pods are all pods on the node, each with its newest status.
func (m *Manager) Pods() []*v1.Pod {
	m.mu.Lock()
	ws := make([]*worker, 0, len(m.workers))
	for _, w := range m.workers {
		ws = append(ws, w)
	}
	m.mu.Unlock()
	out := make([]*v1.Pod, 0, len(ws))
	for _, w := range ws {
		out = append(out, w.current())
	}
	return out
}

// Pod finds one pod by name, with its newest status; nil when it is not here.
func (m *Manager) Pod(namespace, name string) *v1.Pod {
	m.mu.Lock()
	ws := make([]*worker, 0, len(m.workers))
	for _, w := range m.workers {
		ws = append(ws, w)
	}
	m.mu.Unlock()
	var last *v1.Pod
	for _, w := range ws {
		w.mu.Lock()
		its, gone := w.pod.Namespace == namespace && w.pod.Name == name, w.gone
		w.mu.Unlock()
		if its && !gone {
			return w.current()
		} else if its {
			last = w.current() // another of that name may have come while it ends
		}
	}
	return last
}

// ByUID finds one pod, with its newest status; nil when it is not here.
func (m *Manager) ByUID(uid string) *v1.Pod {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.current()
}

// Container is the runtime's newest instance of a pod's container, or the one before it.
func (m *Manager) Container(uid, name string, previous bool) (Container, bool) {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w == nil {
		return Container{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	cs := w.observed.Containers[name]
	n := 0
	if previous {
		n = 1
		// A container in its crash-loop pause has its last run on top.
		if len(cs) > 0 && cs[0].State == Exited && len(cs) == 1 && w.waitingAgain(name) {
			n = 0
		}
	}
	if len(cs) <= n {
		c, ok := w.past[name]
		return c, ok && previous
	}
	return cs[n], true
}

// SandboxID is the pod's running sandbox, empty when there is none.
func (m *Manager) SandboxID(uid string) string {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w == nil {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if sb := w.observed.ready(); sb != nil {
		return sb.ID
	}
	return ""
}

// Fail ends a pod for the node's own reason.
func (m *Manager) Fail(uid string, f Failure) {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w != nil {
		w.fail(f)
	}
}

func (m *Manager) forget(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.workers, uid)
	m.past[uid] = 2
}

// unknownLocked tells that the runtime has nothing of a pod.
func (m *Manager) unknownLocked(uid string) bool {
	_, past := m.past[uid]
	return m.known != nil && !m.known[uid] && !past
}

// Listed takes in which pods the runtime has, by UID. Nobody but their workers makes any, so that a pod which comes after this and
// was never here has nothing there.
func (m *Manager) Listed(known map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = known
	for uid, lists := range m.past {
		// A list that was under way when the worker ended may not tell of what it left.
		if m.past[uid] = lists - 1; lists <= 1 {
			delete(m.past, uid)
		}
	}
}

// active are the pods which were let in and hold resources, but one.
func (m *Manager) active(but string) []*v1.Pod {
	m.mu.Lock()
	ws := make([]*worker, 0, len(m.workers))
	for _, w := range m.workers {
		ws = append(ws, w)
	}
	m.mu.Unlock()
	var out []*v1.Pod
	for _, w := range ws {
		if p := w.current(); string(p.UID) != but && w.in() && !terminal(p.Status.Phase) && !w.removed() {
			out = append(out, p)
		}
	}
	return out
}

func now() time.Time { return time.Now() }
