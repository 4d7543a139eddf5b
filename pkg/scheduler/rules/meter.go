package rules

// Step is a plugin at one of its points.
type Step struct {
	Plugin string
	At     Point
}

// Meter adds up what plugins take during decisions, by the caller's clock. A nil one measures nothing.
type Meter struct {
	// Now answers nanoseconds since any moment.
	Now  func() int64
	Took map[Step]int64 // nanoseconds
}

func (m *Meter) start() int64 {
	if m == nil {
		return 0
	}
	return m.Now()
}

func (m *Meter) end(plugin *Plugin, at Point, began int64) {
	if m != nil {
		m.Took[Step{plugin.Name, at}] += m.Now() - began
	}
}

// firstPoint answers where the work of preparing is upstream's.
func (p *Plugin) firstPoint() Point {
	for _, at := range p.Points {
		if at == PreFilter || at == PreScore {
			return at
		}
	}
	return Filter
}

// steps answers where the plugins have something to say of the class.
func (v *View) steps() (out []Step) {
	for i := range v.parts {
		part := &v.parts[i]
		for _, at := range part.plugin.Points {
			filters := part.Check != nil || part.CheckPlace != nil || part.Late != nil
			scores := part.Score != nil || part.Rank != nil
			if v.profile.on(part.plugin, at) && (at == PreFilter || at == Filter && filters || (at == PreScore || at == Score) && scores) {
				out = append(out, Step{part.plugin.Name, at})
			}
		}
	}
	return out
}
