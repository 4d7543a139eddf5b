package nodelifecycle

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// look answers how the zones are; what was found is believed for one period.
func (c *controller) look(now time.Time) zones {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looked.IsZero() || now.Sub(c.looked) >= c.Period {
		c.lookLocked(now)
	}
	return c.zones
}

func (c *controller) lookLocked(now time.Time) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return // a lister of everything does not fail
	}
	before := c.zones
	c.zones, c.looked = assess(nodes, c.Config), now
	for name, z := range c.zones.by {
		if was, ok := before.by[name]; ok && was.mode != z.mode {
			slog.Info("zone changed", "zone", name, "from", was.mode.String(), "to", z.mode.String())
		}
	}
}

// turn takes a zone's next turn to give up a node, or says how long it is until there is one.
func (c *controller) turn(z zones, name string, now time.Time) (ok bool, wait time.Duration) {
	every, ok := z.by[name].interval()
	if !ok {
		return false, max(c.Period, time.Second)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if wait := c.next[name].Sub(now); wait > 0 {
		return false, wait
	}
	c.next[name] = now.Add(every)
	return true, 0
}

// giveBack lets a zone have again the turn that came to nothing.
func (c *controller) giveBack(name string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next[name] = now
}

// follow looks at the zones every period; when it gets dark, or light again, every node is decided about anew.
func (c *controller) follow(ctx context.Context, enqueue func(runtime.Key)) {
	tick := time.NewTicker(max(c.Period, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		before := c.zones.dark
		c.lookLocked(time.Now())
		changed := before != c.zones.dark
		c.mu.Unlock()
		if !changed {
			continue
		}
		nodes, err := c.nodes.List(labels.Everything())
		if err != nil {
			continue // a lister of everything does not fail
		}
		for _, n := range nodes {
			enqueue(runtime.KeyOf(n))
		}
	}
}
