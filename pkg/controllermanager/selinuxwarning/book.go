package selinuxwarning

import (
	"cmp"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// book is who uses which volume.
type book struct {
	mu sync.Mutex
	// volumes has the pods of each, pods the volumes of each.
	volumes map[string]map[runtime.Key]Use
	pods    map[runtime.Key][]Use
	// mixed has the volumes of a pod that its own containers cannot share, which it has been told of.
	mixed map[runtime.Key][]string
}

func newBook() *book {
	return &book{volumes: map[string]map[runtime.Key]Use{}, pods: map[runtime.Key][]Use{}, mixed: map[runtime.Key][]string{}}
}

// tell takes a pod's mixed volumes in place of those known, and answers those that it has not been told of.
func (b *book) tell(pod runtime.Key, mixed []string) (news []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range mixed {
		if !slices.Contains(b.mixed[pod], name) {
			news = append(news, name)
		}
	}
	if b.mixed[pod] = mixed; len(mixed) == 0 {
		delete(b.mixed, pod)
	}
	return news
}

// put takes a pod's uses in place of those known, and answers the conflicts that are news to both pods: each once, however many
// volumes they share, and none that stood before.
func (b *book) put(pod runtime.Key, uses []Use) (news []Conflict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.pods[pod]
	if slices.Equal(before, uses) {
		return nil
	}
	known := map[Conflict]bool{}
	for _, c := range b.withLocked(pod, before) {
		known[c] = true
	}
	for _, u := range before {
		if delete(b.volumes[u.Volume], pod); len(b.volumes[u.Volume]) == 0 {
			delete(b.volumes, u.Volume)
		}
	}
	delete(b.pods, pod)
	if len(uses) > 0 {
		b.pods[pod] = uses
	}
	for _, u := range uses {
		if b.volumes[u.Volume] == nil {
			b.volumes[u.Volume] = map[runtime.Key]Use{}
		}
		b.volumes[u.Volume][pod] = u
	}
	for _, c := range b.withLocked(pod, uses) {
		if !known[c] {
			known[c] = true
			news = append(news, c)
		}
	}
	return news
}

// withLocked answers the conflicts of a pod's uses with those of others, from both sides.
func (b *book) withLocked(pod runtime.Key, uses []Use) (out []Conflict) {
	for _, u := range uses {
		users := b.volumes[u.Volume]
		for _, other := range sorted(users) {
			if other != pod {
				out = append(out, conflicts(pod, u, other, users[other])...)
				out = append(out, conflicts(other, users[other], pod, u)...)
			}
		}
	}
	return out
}

// all answers every conflict that stands, from both sides, each once however many volumes two pods share.
func (b *book) all() []Conflict {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := map[Conflict]bool{}
	var out []Conflict
	for _, users := range b.volumes {
		for pod, u := range users {
			for other, v := range users {
				if pod == other {
					continue
				}
				for _, c := range conflicts(pod, u, other, v) {
					if !seen[c] {
						seen[c] = true
						out = append(out, c)
					}
				}
			}
		}
	}
	return out
}

func sorted(users map[runtime.Key]Use) []runtime.Key {
	out := make([]runtime.Key, 0, len(users))
	for k := range users {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b runtime.Key) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

var described = prometheus.NewDesc("selinux_warning_controller_selinux_volume_conflict", "Conflict between two Pods using the same volume",
	[]string{"property", "pod1_namespace", "pod1_name", "pod1_value", "pod2_namespace", "pod2_name", "pod2_value"}, nil)

// collector counts the conflicts of the books that are kept now: who loses the lease keeps none. Of two managers in one
// process each has its own.
type collector struct {
	mu    sync.Mutex
	books map[*book]bool
}

// Describe says what the metric is.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { ch <- described }

// Collect is called for every scrape.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := map[Conflict]bool{}
	for b := range c.books {
		for _, x := range b.all() {
			if told[x] {
				continue
			}
			told[x] = true
			ch <- prometheus.MustNewConstMetric(described, prometheus.GaugeValue, 1, x.Property, x.Pod.Namespace, x.Pod.Name, x.Value, x.Other.Namespace, x.Other.Name, x.OtherValue)
		}
	}
}

func (c *collector) keep(b *book, kept bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept {
		c.books[b] = true
	} else {
		delete(c.books, b)
	}
}

// counted is the process's one metric; it joins the others' registry with the first book that is kept.
var (
	counted  = collector{books: map[*book]bool{}}
	register sync.Once
)

// keep has the book counted until done is closed.
func (b *book) keep(done <-chan struct{}) {
	register.Do(func() { legacyregistry.RawMustRegister(&counted) })
	counted.keep(b, true)
	<-done
	counted.keep(b, false)
}
