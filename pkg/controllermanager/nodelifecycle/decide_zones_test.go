package nodelifecycle

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestZones shows how fast nodes are given up, by how many of their zone are well.
func TestZones(t *testing.T) {
	conf := Config{Rate: 0.1, SecondaryRate: 0.01, Unhealthy: 0.55, Large: 50}
	type part struct{ ready, silent int }
	for _, c := range []struct {
		zones []part
		want  string
	}{
		{[]part{{3, 0}}, "r/z0: normal, 0.1 of 3 nodes a second\n"},
		{[]part{{1, 2}}, "r/z0: normal, 0.1 of 3 nodes a second\n"}, // two are too few to tell
		{[]part{{2, 3}}, "r/z0: partly down, 0 of 5 nodes a second\n"},
		{[]part{{20, 40}}, "r/z0: partly down, 0.01 of 60 nodes a second\n"},
		{[]part{{40, 20}}, "r/z0: normal, 0.1 of 60 nodes a second\n"},
		{[]part{{0, 3}, {3, 0}}, "r/z0: down, 0.1 of 3 nodes a second\nr/z1: normal, 0.1 of 3 nodes a second\n"},
		{[]part{{0, 1}}, "r/z0: down, 0 of 1 nodes a second\ndark\n"},
		{[]part{{0, 3}, {0, 2}}, "r/z0: down, 0 of 3 nodes a second\nr/z1: down, 0 of 2 nodes a second\ndark\n"},
	} {
		var nodes []*corev1.Node
		for i, z := range c.zones {
			for j := range z.ready + z.silent {
				n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i, "-", j), Labels: map[string]string{corev1.LabelTopologyRegion: "r", corev1.LabelTopologyZone: fmt.Sprint("z", i)}}}
				if j < z.ready {
					n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
				}
				nodes = append(nodes, n)
			}
		}
		if got := assess(nodes, conf).String(); got != c.want {
			t.Errorf("%v:\n%swant\n%s", c.zones, got, c.want)
		}
	}
}

// TestTurns: a zone gives up one node in ten seconds, and a turn that came to nothing is not lost.
func TestTurns(t *testing.T) {
	c := &controller{Config: Config{Period: time.Second}, next: map[string]time.Time{}}
	z := zones{by: map[string]zone{"z": {rate: 0.1}}}
	now := time.Unix(1000, 0)
	if ok, _ := c.turn(z, "z", now); !ok {
		t.Fatal("the first has to wait")
	}
	if ok, wait := c.turn(z, "z", now.Add(4*time.Second)); ok || wait.Round(time.Second) != 6*time.Second {
		t.Fatalf("the second: %v, %s", ok, wait)
	}
	c.giveBack("z", now.Add(4*time.Second))
	if ok, _ := c.turn(z, "z", now.Add(4*time.Second)); !ok {
		t.Fatal("a turn given back is not there")
	}
	if ok, wait := c.turn(z, "nowhere", now); ok || wait != time.Second {
		t.Fatalf("a zone that is not known: %v, %s", ok, wait)
	}
}
