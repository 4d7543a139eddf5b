// Package fairness decides whose request is served when not all can be.
//
// The flow: Classify finds the flow schema of a request, and through it the priority level and the flow; Enter takes the
// request's seats at that level at once if it has them, else the request waits in the shortest of the few queues its flow
// was dealt, and is turned away if that is full or the wait too long. Whoever leaves gives its seats to the waiting one
// whose turn it is: start-time fair queueing, so each queue gets its share whatever its length. A level that is full takes
// seats that others have lent and do not use. What flow schemas and levels say is compiled when they change; a level keeps
// its queues meanwhile. Everything may be called from all requests at once: each level guards itself.
package fairness

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var (
	flowSchemas    = schema.GroupResource{Group: flowcontrolv1.GroupName, Resource: "flowschemas"}
	priorityLevels = schema.GroupResource{Group: flowcontrolv1.GroupName, Resource: "prioritylevelconfigurations"}
)

// Config says what there is to share.
type Config struct {
	Env   kind.Env
	Seats int // of all levels together
	// Count answers how many objects of a resource are stored, for the width of lists; nil counts none.
	Count func(gr schema.GroupResource) int
	// Ready tells whether Env can be asked for a resource without waiting; until then only what always is counts. nil is ready.
	Ready func(schema.GroupResource) bool
}

// Room shares the seats.
type Room struct {
	c   Config
	now atomic.Pointer[rules]

	mu     sync.Mutex // held while compiling
	levels map[string]*level
	peers  atomic.Pointer[[]*level] // levels, for each other
}

// rules are flow schemas in the order they are asked.
type rules struct {
	stamp [3]uint64
	flows []*Flow
}

// Flow is a flow schema as requests see it.
type Flow struct {
	Name, UID string
	spec      *flowcontrolv1.FlowSchemaSpec
	level     *level
	seen      counters
}

// LevelUID is the UID of the flow's priority level.
func (f *Flow) LevelUID() string { return f.level.uid.Load().(string) }

// New takes the configuration.
func New(c Config) *Room { return &Room{c: c, levels: map[string]*level{}} }

// Classify finds the flow schema of a request.
func (r *Room) Classify(ctx context.Context, a *authorizer.AttributesRecord) *Flow {
	now := r.current(ctx)
	for _, f := range now.flows {
		if matches(f.spec, a) {
			return f
		}
	}
	return now.flows[len(now.flows)-1] // the catch-all takes what nothing else took
}

func (r *Room) current(ctx context.Context) *rules {
	stamp := [3]uint64{r.c.Env.Changed(flowSchemas), r.c.Env.Changed(priorityLevels), 0}
	if r.ready() {
		stamp[2] = 1
	}
	if now := r.now.Load(); now != nil && now.stamp == stamp {
		return now
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now.Load(); now != nil && now.stamp == stamp {
		return now
	}
	now := r.compile(ctx)
	now.stamp = stamp
	r.now.Store(now)
	return now
}

func (r *Room) ready() bool {
	return r.c.Ready == nil || r.c.Ready(flowSchemas) && r.c.Ready(priorityLevels)
}

// list answers the stored objects, none while they cannot be known.
func (r *Room) list(ctx context.Context, gr schema.GroupResource) []kind.Object {
	if !r.ready() {
		return nil
	}
	objs, err := r.c.Env.List(context.WithoutCancel(ctx), gr, "") // who asks may go; the answer is for all
	if err != nil {
		slog.Error("flow control goes by what always is", "err", err)
	}
	return objs
}

// compile reads schemas and levels. The two of each that must be are there even when they were deleted.
func (r *Room) compile(ctx context.Context) *rules {
	levels := map[string]*flowcontrolv1.PriorityLevelConfiguration{}
	for _, l := range mandatoryLevels() {
		levels[l.Name] = l
	}
	for _, o := range r.list(ctx, priorityLevels) {
		l := o.(*flowcontrolv1.PriorityLevelConfiguration)
		levels[l.Name] = l
	}
	shares := 0.0
	for _, l := range levels {
		shares += float64(sharesOf(l))
	}
	for name, l := range levels {
		was := r.levels[name]
		if was == nil {
			was = newLevel(r, name)
			r.levels[name] = was
		}
		nominal := 0
		if n := sharesOf(l); n > 0 {
			nominal = int(math.Ceil(float64(r.c.Seats) * float64(n) / shares))
		}
		was.configure(l, nominal)
	}
	for name, l := range r.levels {
		if levels[name] == nil {
			l.retire() // those that wait there are served; nobody comes any more
			delete(r.levels, name)
		}
	}
	peers := make([]*level, 0, len(r.levels))
	for _, l := range r.levels {
		peers = append(peers, l)
	}
	slices.SortFunc(peers, func(a, b *level) int { return cmp.Compare(a.name, b.name) })
	r.peers.Store(&peers)
	return &rules{flows: r.flows(ctx)}
}

func (r *Room) flows(ctx context.Context) []*Flow {
	specs := map[string]*flowcontrolv1.FlowSchema{}
	for _, f := range mandatoryFlows() {
		specs[f.Name] = f
	}
	for _, o := range r.list(ctx, flowSchemas) {
		f := o.(*flowcontrolv1.FlowSchema)
		specs[f.Name] = f
	}
	var out []*Flow
	for _, f := range specs {
		l := r.levels[f.Spec.PriorityLevelConfiguration.Name]
		if l == nil {
			continue // it dangles: its requests fall to the next schema
		}
		out = append(out, &Flow{Name: f.Name, UID: string(f.UID), spec: &f.Spec, level: l, seen: countersOf(l.name, f.Name)})
	}
	slices.SortFunc(out, func(a, b *Flow) int {
		last := func(f *Flow) int {
			if f.Name == flowcontrolv1.FlowSchemaNameCatchAll {
				return 1
			}
			return 0
		}
		return cmp.Or(last(a)-last(b), int(a.spec.MatchingPrecedence)-int(b.spec.MatchingPrecedence), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func sharesOf(l *flowcontrolv1.PriorityLevelConfiguration) int32 {
	if e := l.Spec.Exempt; e != nil && e.NominalConcurrencyShares != nil {
		return *e.NominalConcurrencyShares
	}
	if n := l.Spec.Limited; n != nil && n.NominalConcurrencyShares != nil {
		return *n.NominalConcurrencyShares
	}
	return 0
}

// The width of a list: a seat for so many objects, and so many seats at most.
const (
	perSeat  = 100
	maxSeats = 10
)

// Width is how many seats a request takes. limit is the page it asks for, 0 = everything.
func (r *Room) Width(a *authorizer.AttributesRecord, limit int64) int {
	if a.Verb != "list" || !a.ResourceRequest || a.Name != "" || r.c.Count == nil {
		return 1
	}
	n := r.c.Count(schema.GroupResource{Group: a.APIGroup, Resource: a.Resource})
	if limit > 0 && limit < int64(n) {
		n = int(limit)
	}
	return max(1, min(maxSeats, (n+perSeat-1)/perSeat))
}
