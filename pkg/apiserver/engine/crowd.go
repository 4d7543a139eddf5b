package engine

import "sync"

// Watchers who are told the state at once: from the first number on they are a crowd, down to the second they stay one.
const (
	crowdFrom = 64
	crowdTo   = 16
)

// crowd counts the watchers that are being told the state.
type crowd struct {
	tell func(on bool) // nil = nobody wants to know

	mu sync.Mutex
	n  int
	on bool
}

// join notes one who begins; it calls the answer when it is done.
func (c *crowd) join() (leave func()) {
	c.add(1)
	return func() { c.add(-1) }
}

func (c *crowd) add(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += by
	on := c.n >= crowdFrom || c.on && c.n > crowdTo
	if on != c.on && c.tell != nil {
		c.tell(on)
	}
	c.on = on
}
