package fields

// The trees that are compared and joined here are in order, so one walk over both is enough. Results are appended to out.

// meets tells whether anything in d is a member of e.
func meets(e, d tree) bool {
	for len(e) > 0 && len(d) > 0 {
		o, _ := order(e[0].key, d[0].key)
		switch {
		case o < 0:
			e = e.after()
		case o > 0:
			d = d.after()
		case e[0].is&changed != 0 && d[0].is&(changed|removed) != 0, meets(e.below(), d.below()):
			return true
		default:
			e, d = e.after(), d.after()
		}
	}
	return false
}

// subtract appends what is in e and not in d.
func (out *tree) subtract(e, d tree) {
	for len(e) > 0 {
		if len(d) == 0 {
			*out = append(*out, e...)
			return
		}
		o, _ := order(e[0].key, d[0].key)
		if o > 0 {
			d = d.after()
			continue
		}
		if o < 0 {
			*out = append(*out, e[:e[0].size]...)
			e = e.after()
			continue
		}
		at := out.open(e[0])
		if d[0].is&(changed|removed) != 0 {
			(*out)[at].is = 0
		}
		out.subtract(e.below(), d.below())
		out.close(at)
		e, d = e.after(), d.after()
	}
}

// join appends what is in a, in b, or in both.
func (out *tree) join(a, b tree) {
	for len(a) > 0 && len(b) > 0 {
		o, _ := order(a[0].key, b[0].key)
		switch {
		case o < 0:
			*out = append(*out, a[:a[0].size]...)
			a = a.after()
		case o > 0:
			*out = append(*out, b[:b[0].size]...)
			b = b.after()
		default:
			at := out.open(a[0])
			(*out)[at].is |= b[0].is
			out.join(a.below(), b.below())
			out.close(at)
			a, b = a.after(), b.after()
		}
	}
	*out = append(append(*out, a...), b...)
}

// gained appends what a difference gives to its writer.
func (out *tree) gained(d tree) {
	for ; len(d) > 0; d = d.after() {
		at := out.open(d[0])
		if d[0].is&(changed|nobodys) != changed {
			(*out)[at].is = 0
		}
		out.gained(d.below())
		out.close(at)
	}
}

// open begins a node, and answers where it is.
func (out *tree) open(n node) (at int) {
	*out = append(*out, node{key: n.key, is: n.is & changed})
	return len(*out) - 1
}

// close ends a node; one that is no member and has none below it is left out.
func (out *tree) close(at int) {
	n := &(*out)[at]
	n.size = int32(len(*out) - at)
	if n.size == 1 && n.is == 0 {
		*out = (*out)[:at]
	}
}
