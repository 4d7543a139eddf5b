package scheduler

import (
	"context"
	"fmt"
	"slices"
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
	known   map[string]bool            // groups that exist
}

func newGangs() gangs {
	return gangs{members: map[string]map[string]bool{}, of: map[string]string{}, minimum: map[string]int{}, known: map[string]bool{}}
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
		if o != nil {
			s.gangs.known[key] = true
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
	type placed struct {
		w    *waiting
		plan rules.Plan
	}
	var fit []placed
	var refused []*waiting
	var why []rules.Plan
	for _, w := range gang {
		if w != first && !s.queue.take(w) {
			continue
		}
		plan, err := decide(rules.Snapshot{Table: s.table, Pod: w.pod, Profile: s.config.profiles[w.raw.Spec.SchedulerName]})
		w.deciding = false
		if err != nil || plan.Node == "" {
			refused, why = append(refused, w), append(why, plan)
			continue
		}
		s.reserveFor(w, plan, began)
		fit = append(fit, placed{w, plan})
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
	all := refused
	for _, p := range fit {
		delete(s.assumed, p.w.pod.Key)
		s.table.DeletePod(p.w.pod.Key)
		s.table.Storage.Unreserve(p.plan.Volumes)
		s.table.Devices.Unreserve(p.plan.Claims)
		all = append(all, p.w)
	}
	message, rejectors := "", []string(nil)
	if len(why) > 0 {
		message, rejectors = why[0].Message, why[0].Rejectors
	}
	s.holdBack(ctx, all, fmt.Sprintf("%d of the gang's pods fit, %d must at once. %s", standing+len(fit), least, message), rejectors, began)
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
