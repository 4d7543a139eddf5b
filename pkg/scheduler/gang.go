package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// gangs are the pod groups whose pods are placed together or not at all.
type gangs struct {
	members map[string]map[string]bool // pods by group, waiting and standing
	of      map[string]string          // the group of a pod
	minimum map[string]int             // of the groups with the gang policy
	within  map[string]string          // the node label whose value the nodes of all pods of a group must share
	known   map[string]bool            // groups that exist
}

func newGangs() gangs {
	return gangs{members: map[string]map[string]bool{}, of: map[string]string{}, minimum: map[string]int{}, within: map[string]string{}, known: map[string]bool{}}
}

// gangOf answers the group a pod names, empty for none.
func gangOf(p *v1.Pod) string {
	if g := p.Spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
		return p.Namespace + "/" + *g.PodGroupName
	}
	return ""
}

func (g *gangs) join(group, pod string) {
	if group == "" {
		return
	}
	if g.members[group] == nil {
		g.members[group] = map[string]bool{}
	}
	g.members[group][pod] = true
	g.of[pod] = group
}

func (g *gangs) leave(pod string) {
	group, ok := g.of[pod]
	if !ok {
		return
	}
	delete(g.of, pod)
	if delete(g.members[group], pod); len(g.members[group]) == 0 {
		delete(g.members, group)
	}
}

// least answers how many pods of w's group must stand at once, 0 when w may be decided alone. A group that does not exist yet holds
// its pods back.
func (g *gangs) least(w *waiting) int {
	group := g.of[w.pod.Key]
	switch {
	case group == "":
		return 0
	case !g.known[group]:
		return 1 << 30
	}
	return g.minimum[group]
}

// watchGangs sets up the watch of pod groups.
func (s *Scheduler) watchGangs() {
	watched(s, s.scheduling.RESTClient(), "podgroups", 0, func(key string, o *schedulingv1beta1.PodGroup) {
		delete(s.gangs.minimum, key)
		delete(s.gangs.known, key)
		delete(s.gangs.within, key)
		if o != nil {
			s.gangs.known[key] = true
			if c := o.Spec.SchedulingConstraints; c != nil && len(c.Topology) > 0 {
				s.gangs.within[key] = c.Topology[0].Key // the API takes one
			}
			if gang := o.Spec.SchedulingPolicy.Gang; gang != nil {
				s.gangs.minimum[key] = int(gang.MinCount)
			}
		}
		s.wakeGang(key, time.Now())
	})
}

// wakeGang has the waiting pods of a group tried again. The lock is held.
func (s *Scheduler) wakeGang(group string, now time.Time) {
	for key := range s.gangs.members[group] {
		if w := s.queue.find(key); w != nil && slices.Contains(w.rejectors, rules.GangScheduling) && s.queue.parked[w.group][key] == w {
			s.queue.unpark(w)
			s.queue.ripen(w, "GangChange", now)
		}
	}
}

// oneGang decides all waiting pods of a group, and binds them if as many as must then stand. It is called with the lock and gives it up.
func (s *Scheduler) oneGang(ctx context.Context, first *waiting, least int, began time.Time) {
	group := s.gangs.of[first.pod.Key]
	gang, standing := []*waiting{first}, 0
	for key := range s.gangs.members[group] {
		if p, _ := s.table.Pod(key); p != nil {
			standing++
		} else if w := s.queue.find(key); w != nil && w != first {
			gang = append(gang, w)
		}
	}
	if standing+len(gang) < least {
		s.holdBack(ctx, []*waiting{first}, "waiting for minCount pods from a gang to appear in scheduling queue", nil, began)
		return
	}
	slices.SortFunc(gang[1:], func(a, b *waiting) int {
		if rules.Before(a.pod, a.added, b.pod, b.added) {
			return -1
		}
		return 1
	})
	taken := gang[:1]
	for _, w := range gang[1:] {
		if s.queue.take(w) {
			taken = append(taken, w)
		}
	}
	var fit []placed
	var refused []*waiting
	var why []rules.Plan
	for _, within := range s.domains(group) {
		s.undoGang(fit) // of the domain before
		if fit, refused, why = s.tryGang(taken, within, began); standing+len(fit) >= least {
			break
		}
	}
	if standing+len(fit) >= least {
		for i, w := range refused {
			s.holdBackLocked(w, why[i].Message, why[i].Rejectors, began)
		}
		raws := make([]*v1.Pod, len(fit))
		for i := range fit {
			raws[i] = fit[i].w.raw
		}
		s.mu.Unlock()
		for i := range fit {
			s.launch(ctx, fit[i].w, raws[i], fit[i].plan, began)
		}
		return
	}
	s.undoGang(fit)
	all := refused
	for _, p := range fit {
		all = append(all, p.w)
	}
	message, rejectors := "", []string(nil)
	if len(why) > 0 {
		message, rejectors = why[0].Message, why[0].Rejectors
	}
	s.holdBack(ctx, all, fmt.Sprintf("%d of the gang's pods fit, %d must at once. %s", standing+len(fit), least, message), rejectors, began)
}

// placed is a pod of a gang with its node, assumed.
type placed struct {
	w    *waiting
	plan rules.Plan
}

// domains answers where a group's pods may stand together, as sets of nodes: the largest first, or, where some of the group stand already,
// theirs alone. A nil set is everywhere. The lock is held.
func (s *Scheduler) domains(group string) []map[string]bool {
	key := s.gangs.within[group]
	if key == "" {
		return []map[string]bool{nil}
	}
	all := s.table.Domains(key)
	for pod := range s.gangs.members[group] {
		if p, node := s.table.Pod(pod); p != nil {
			for _, nodes := range all {
				if nodes[node] {
					return []map[string]bool{nodes}
				}
			}
		}
	}
	out := []map[string]bool{}
	for _, value := range slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(all[b]), len(all[a])), strings.Compare(a, b))
	}) {
		out = append(out, all[value])
	}
	if len(out) == 0 {
		out = append(out, map[string]bool{})
	}
	return out
}

// tryGang decides and assumes one pod after another, on nodes of a domain. The lock is held.
func (s *Scheduler) tryGang(gang []*waiting, within map[string]bool, began time.Time) (fit []placed, refused []*waiting, why []rules.Plan) {
	for _, w := range gang {
		snapshot := rules.Snapshot{Table: s.table, Pod: w.pod, Profile: s.config.profiles[w.raw.Spec.SchedulerName]}
		if within != nil {
			snapshot.Adjust = func(candidates []rules.Candidate) (rules.Adjustment, error) {
				out := rules.Adjustment{Refused: map[string]rules.Verdict{}}
				for _, c := range candidates {
					if !within[c.Node] {
						out.Refused[c.Node] = rules.Verdict{Plugin: rules.GangScheduling, Final: true,
							Reasons: []string{"node(s) were outside the pod group's topology domain"}}
					}
				}
				return out, nil
			}
		}
		plan, err := decide(snapshot)
		w.deciding = false
		if err != nil || plan.Node == "" {
			refused, why = append(refused, w), append(why, plan)
			continue
		}
		s.reserveFor(w, plan, began)
		fit = append(fit, placed{w, plan})
	}
	return fit, refused, why
}

// undoGang takes assumptions back. The lock is held.
func (s *Scheduler) undoGang(fit []placed) {
	for _, p := range fit {
		delete(s.assumed, p.w.pod.Key)
		s.table.DeletePod(p.w.pod.Key)
		s.table.Storage.Unreserve(p.plan.Volumes)
		s.table.Devices.Unreserve(p.plan.Claims)
	}
}

// holdBackLocked parks one pod of a gang until its group or the cluster changes.
func (s *Scheduler) holdBackLocked(w *waiting, message string, rejectors []string, began time.Time) {
	rejectors = append(slices.Clone(rejectors), rules.GangScheduling)
	w.deciding = false
	s.explained.put(w, rules.Plan{Message: message, Rejectors: rejectors}, began)
	s.queue.park(w, rejectors, time.Now(), s.helps)
}

// holdBack parks pods of a gang and tells them why. It is called with the lock and gives it up.
func (s *Scheduler) holdBack(ctx context.Context, all []*waiting, message string, rejectors []string, began time.Time) {
	raws := make([]*v1.Pod, len(all))
	for i, w := range all {
		s.holdBackLocked(w, message, rejectors, began)
		raws[i] = w.raw
	}
	s.mu.Unlock()
	for i, w := range all {
		s.count(w, "unschedulable", began)
		s.behind(func() { s.refused(ctx, raws[i], rules.Plan{Message: message}, false) })
	}
}
