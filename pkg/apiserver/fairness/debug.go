package fairness

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// state is a level at one moment.
type state struct {
	exempt                                   bool
	nominal, lendable, borrow, used, waiting int
	queues                                   [][]waiter // who waits in each
}

func (l *level) state() state {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := state{exempt: l.exempt, nominal: l.nominal, lendable: l.lendable, borrow: l.borrow, used: l.used, waiting: l.waiting}
	for i := range l.queues {
		var line []waiter
		for _, w := range l.queues[i].line {
			line = append(line, *w)
		}
		s.queues = append(s.queues, line)
	}
	return s
}

// Debug is where ServeHTTP answers.
const Debug = "/debug/api_priority_and_fairness/"

// ServeHTTP tells what goes on, as tables.
func (r *Room) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var b strings.Builder
	switch strings.TrimPrefix(req.URL.Path, Debug) {
	case "dump_priority_levels":
		r.dumpLevels(&b)
	case "dump_queues":
		r.dumpQueues(&b)
	case "dump_requests":
		details := req.URL.Query().Get("includeRequestDetails")
		r.dumpRequests(&b, details != "" && details != "0" && details != "false")
	default:
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(b.String())) // a client that went has nothing to be told
}

func (r *Room) dumpLevels(b *strings.Builder) {
	b.WriteString("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests\n")
	for _, l := range r.all() {
		s := l.state()
		active := 0
		for _, q := range s.queues {
			active += min(len(q), 1)
		}
		_, _ = fmt.Fprintf(b, "%s, %d, %t, false, %d, %d\n", l.name, active, s.used == 0 && s.waiting == 0, s.waiting, s.used)
	}
}

func (r *Room) dumpQueues(b *strings.Builder) {
	b.WriteString("PriorityLevelName, Index, PendingRequests, InitialSeatsSum\n")
	for _, l := range r.all() {
		for i, q := range l.state().queues {
			width := 0
			for _, w := range q {
				width += w.width
			}
			_, _ = fmt.Fprintf(b, "%s, %d, %d, %d\n", l.name, i, len(q), width)
		}
	}
}

func (r *Room) dumpRequests(b *strings.Builder, details bool) {
	b.WriteString("PriorityLevelName, FlowSchemaName, QueueIndex, RequestIndexInQueue, FlowDistingsher, ArriveTime, InitialSeats")
	if details {
		b.WriteString(", UserName, Verb, APIPath, Namespace, Name, APIVersion, Resource, SubResource")
	}
	b.WriteByte('\n')
	for _, l := range r.all() {
		for i, q := range l.state().queues {
			for n, w := range q {
				_, _ = fmt.Fprintf(b, "%s, %s, %d, %d, %s, %s, %d", l.name, w.flow.Name, i, n, w.flow.distinguisher(w.asks), w.since.UTC().Format(time.RFC3339Nano), w.width)
				if a := w.asks; details {
					version := a.APIVersion
					if a.APIGroup != "" {
						version = a.APIGroup + "/" + version
					}
					_, _ = fmt.Fprintf(b, ", %s, %s, %s, %s, %s, %s, %s, %s", a.User.GetName(), a.Verb, a.Path, a.Namespace, a.Name, version, a.Resource, a.Subresource)
				}
				b.WriteByte('\n')
			}
		}
	}
}
