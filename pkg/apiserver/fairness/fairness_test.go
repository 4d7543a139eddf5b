package fairness

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// cluster is an Env with flow schemas and levels.
type cluster struct {
	kind.Env
	flows, levels []kind.Object
	changes       uint64
}

func (c *cluster) Changed(schema.GroupResource) uint64 { return c.changes }

func (c *cluster) List(_ context.Context, gr schema.GroupResource, _ string) ([]kind.Object, error) {
	if gr == flowSchemas {
		return c.flows, nil
	}
	return c.levels, nil
}

// limited is a level with so many shares, that queues if queues > 0.
func limited(name string, shares, queues, length int32) *flowcontrolv1.PriorityLevelConfiguration {
	l := &flowcontrolv1.LimitedPriorityLevelConfiguration{NominalConcurrencyShares: &shares, LendablePercent: new(int32(0)), BorrowingLimitPercent: new(int32(0))}
	l.LimitResponse.Type = flowcontrolv1.LimitResponseTypeReject
	if queues > 0 {
		l.LimitResponse = flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue, Queuing: &flowcontrolv1.QueuingConfiguration{Queues: queues, HandSize: 1, QueueLengthLimit: length}}
	}
	return &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid-" + "x"}, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{Type: flowcontrolv1.PriorityLevelEnablementLimited, Limited: l}}
}

// users is a flow schema about users' pods, each user a flow.
func users(name, level string, precedence int32, names ...string) *flowcontrolv1.FlowSchema {
	rule := flowcontrolv1.PolicyRulesWithSubjects{ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{""}, Resources: []string{"pods"}, Namespaces: []string{"*"}}}}
	for _, n := range names {
		rule.Subjects = append(rule.Subjects, flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: n}})
	}
	return &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level}, MatchingPrecedence: precedence,
		DistinguisherMethod: &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType}, Rules: []flowcontrolv1.PolicyRulesWithSubjects{rule},
	}}
}

func pods(name string, groups ...string) *authorizer.AttributesRecord {
	return &authorizer.AttributesRecord{User: &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}, Verb: "get", Resource: "pods", Namespace: "default", ResourceRequest: true}
}

func TestClassify(t *testing.T) {
	c := &cluster{levels: []kind.Object{limited("work", 10, 0, 0)}, flows: []kind.Object{users("late", "work", 500, "ann"), users("early", "work", 100, "ann", "bob"), users("dangling", "nowhere", 1, "ann")}}
	r := New(Config{Env: c, Seats: 10})
	for _, x := range []struct {
		a    *authorizer.AttributesRecord
		want string
	}{
		{pods("ann"), "early"}, {pods("eve"), "catch-all"}, {pods("root", user.SystemPrivilegedGroup), "exempt"},
		{&authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "ann", Groups: []string{user.AllAuthenticated}}, Verb: "get", Path: "/version"}, "catch-all"},
	} {
		if f := r.Classify(t.Context(), x.a); f.Name != x.want {
			t.Errorf("%s falls to %s, want %s", x.a.User.GetName(), f.Name, x.want)
		}
	}
	c.flows, c.changes = c.flows[:1], 1
	if f := r.Classify(t.Context(), pods("ann")); f.Name != "late" {
		t.Errorf("after a change: %s", f.Name)
	}
}

// TestTurns lets a crowd of one user not hold up another's single request.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{levels: []kind.Object{limited("work", 1000000, 64, 50)}, flows: []kind.Object{users("all", "work", 100, "*")}}
		r := New(Config{Env: c, Seats: 1})
		f := r.Classify(t.Context(), pods("crowd"))
		leave, _, ok := f.Enter(t.Context(), pods("crowd"), 1)
		if !ok {
			t.Fatal("the first was turned away")
		}
		var order []string
		ask := func(name string) {
			go func() {
				if leave, _, ok := f.Enter(t.Context(), pods(name), 1); ok {
					order = append(order, name)
					time.Sleep(time.Millisecond)
					leave()
				}
			}()
			synctest.Wait()
		}
		for range 20 {
			ask("crowd")
		}
		ask("ann")
		leave()
		time.Sleep(time.Second)
		synctest.Wait() // for the last of them to be done, not only late
		if n := slices.Index(order, "ann"); len(order) != 21 || n > 2 {
			t.Errorf("ann was number %d of %d", n+1, len(order))
		}
		if s := f.level.state(); s.used != 0 || s.waiting != 0 {
			t.Errorf("in the end %+v", s)
		}
	})
}

func TestTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{levels: []kind.Object{limited("queues", 500000, 1, 2), limited("rejects", 500000, 0, 0)}, flows: []kind.Object{users("q", "queues", 100, "ann"), users("r", "rejects", 100, "bob")}}
		r := New(Config{Env: c, Seats: 2})
		enter := func(name string) string {
			_, why, ok := r.Classify(t.Context(), pods(name)).Enter(t.Context(), pods(name), 1)
			if ok {
				return "in"
			}
			return why
		}
		if got := enter("bob") + " " + enter("bob"); got != "in concurrency-limit" {
			t.Errorf("rejecting: %s", got)
		}
		got := make(chan string, 4)
		for range 4 {
			go func() { got <- enter("ann") }()
			synctest.Wait()
		}
		if a, b := <-got, <-got; a != "in" || b != "queue-full" {
			t.Errorf("queueing: %s, %s", a, b)
		}
		begun := time.Now()
		if a, b := <-got, <-got; a != "time-out" || b != "time-out" || time.Since(begun) != patience {
			t.Errorf("waiting: %s, %s after %v", a, b, time.Since(begun))
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", Debug+"dump_priority_levels", nil))
		if !strings.Contains(w.Body.String(), "queues, 0, false, false, 0, 1\n") {
			t.Errorf("told %s", w.Body)
		}
	})
}

func TestBorrowing(t *testing.T) {
	lends, takes := limited("lends", 500000, 0, 0), limited("takes", 500000, 0, 0)
	*lends.Spec.Limited.LendablePercent = 50
	takes.Spec.Limited.BorrowingLimitPercent = nil
	c := &cluster{levels: []kind.Object{lends, takes}, flows: []kind.Object{users("l", "lends", 100, "ann"), users("t", "takes", 100, "bob")}}
	r := New(Config{Env: c, Seats: 20})
	many := func(name string) (n int) {
		for range 100 {
			if _, _, ok := r.Classify(t.Context(), pods(name)).Enter(t.Context(), pods(name), 1); ok {
				n++
			}
		}
		return n
	}
	if got := many("bob"); got != 15 {
		t.Errorf("with seats lent: %d", got)
	}
	if got := many("ann"); got != 10 {
		t.Errorf("who lends keeps a right to its own: %d", got)
	}
}

func TestWidth(t *testing.T) {
	r := New(Config{Count: func(schema.GroupResource) int { return 450 }})
	list := pods("ann")
	list.Verb = "list"
	for limit, want := range map[int64]int{0: 5, 100: 1, 101: 2} {
		if got := r.Width(list, limit); got != want {
			t.Errorf("a page of %d takes %d seats, want %d", limit, got, want)
		}
	}
	if got := r.Width(pods("ann"), 0); got != 1 {
		t.Errorf("a get takes %d seats", got)
	}
}

// TestDeal deals each queue at most once, and all of them sooner or later.
func TestDeal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 128).Draw(t, "queues")
		size := rapid.IntRange(1, 10).Draw(t, "hand")
		hand := map[int]bool{}
		deal(rapid.Uint64().Draw(t, "hash"), n, size, func(q int) {
			if hand[q] || q < 0 || q >= n {
				t.Fatalf("dealt %d again, or it is none", q)
			}
			hand[q] = true
		})
		if len(hand) != min(n, size) {
			t.Fatalf("dealt %d", len(hand))
		}
	})
	seen := map[int]bool{}
	f := &Flow{Name: "f", spec: &users("f", "", 1, "*").Spec}
	for i := range 2000 {
		deal(f.flow(pods(fmt.Sprint("u", i))), 64, 6, func(q int) { seen[q] = true })
	}
	if len(seen) != 64 {
		t.Errorf("only %d queues are used", len(seen))
	}
}

func BenchmarkEnter(b *testing.B) {
	c := &cluster{levels: []kind.Object{limited("work", 1000000, 64, 50)}}
	for i := range int32(12) {
		c.flows = append(c.flows, users(fmt.Sprint("f", i), "work", i, fmt.Sprint("u", i)))
	}
	r := New(Config{Env: c, Seats: 600})
	a := pods("u11")
	for b.Loop() {
		leave, _, _ := r.Classify(b.Context(), a).Enter(b.Context(), a, 1)
		leave()
	}
}
