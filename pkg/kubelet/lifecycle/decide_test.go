package lifecycle

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// world is a runtime which does what it is told, driven by a script.
type world struct {
	pod   *v1.Pod
	s     Snapshot
	ids   int
	start time.Time
	old   v1.PodStatus
	// pending, going and sizes are of a change of size.
	pending, going *Failure
	sizes          map[string][2]sized
	size           v1.ResourceRequirements
	// starts counts those of containers the runtime was made to forget, as their logs would.
	starts map[string]int
}

func newWorld(t *testing.T, raw []byte) *world {
	w := &world{pod: &v1.Pod{}, start: time.Unix(1000, 0), starts: map[string]int{}}
	if err := yaml.UnmarshalStrict(raw, w.pod); err != nil {
		t.Fatal(err)
	}
	w.s = Snapshot{Pod: w.pod, Now: w.start, Observed: Observed{Containers: map[string][]Container{}}, Verdicts: map[string]Verdict{},
		Backoff: map[string]time.Duration{}, Killing: map[string]time.Time{}, Retry: map[string]time.Time{}}
	w.size = allot(w.pod)[""]
	return w
}

// do performs one plan as the real worker would.
func (w *world) do(p Plan) {
	for _, k := range p.Kills {
		w.s.Killing[k.ID] = w.s.Now.Add(time.Duration(k.Grace) * time.Second)
	}
	for i := range w.s.Observed.Sandboxes {
		for _, id := range p.Stop {
			if w.s.Observed.Sandboxes[i].ID == id {
				w.s.Observed.Sandboxes[i].Ready = false
			}
		}
	}
	if first := culprit(w.s); first != nil && len(p.Remove) > 0 {
		w.s.Backoff[first.Name] = nextBackoff(w.s.Backoff[first.Name], first.Finished.Sub(first.Started), 5*time.Minute)
	}
	for _, c := range p.Remove {
		w.remove(c)
	}
	w.s.Busy = w.s.Busy && !p.Interrupt
	if p.Sandbox {
		w.ids++
		w.s.Observed.Sandboxes = append([]Sandbox{{ID: fmt.Sprintf("sb%d", w.ids), Ready: true, IPs: []string{"10.0.0.1"}}}, w.s.Observed.Sandboxes...)
	}
	for _, name := range p.Start {
		w.ids++
		c := Container{ID: fmt.Sprintf("c%d", w.ids), Name: name, SandboxID: w.s.Observed.Sandboxes[0].ID, State: Running, Created: w.s.Now, Started: w.s.Now, Restarts: w.starts[name], Hash: Hash(specOf(w.pod, name))}
		if last := w.s.Observed.Latest(name); last != nil {
			c.Restarts = last.Restarts + 1
			w.s.Backoff[name] = nextBackoff(w.s.Backoff[name], last.Finished.Sub(last.Started), 5*time.Minute)
		}
		w.s.Verdicts[c.ID] = firstVerdict(w.pod, specOf(w.pod, name), c.ID)
		w.s.Observed.Containers[name] = append([]Container{c}, w.s.Observed.Containers[name]...)
	}
	w.s.TornDown = w.s.TornDown || p.Teardown
}

// remove has the runtime forget one instance.
func (w *world) remove(c Container) {
	w.starts[c.Name] = max(w.starts[c.Name], c.Restarts+1)
	w.s.Observed.Containers[c.Name] = slices.DeleteFunc(slices.Clone(w.s.Observed.Containers[c.Name]), func(x Container) bool { return x.ID == c.ID })
}

func (w *world) run(t *testing.T, line string) string {
	f := strings.Fields(line)
	w.s.Over, w.s.Restarting = terminal(w.old.Phase), restartBegun(w.old)
	latest := func() *Container {
		c := w.s.Observed.Latest(f[1])
		if c == nil {
			t.Fatalf("%s: no such container", line)
		}
		return c
	}
	switch f[0] {
	case "step":
		p := decide(w.s)
		w.do(p)
		return p.String()
	case "exit":
		c := latest()
		code, _ := strconv.Atoi(f[2])
		c.State, c.ExitCode, c.Finished = Exited, int32(code), w.s.Now
		delete(w.s.Killing, c.ID)
	case "ready", "unready", "started", "unhealthy":
		c := latest()
		v := w.s.Verdicts[c.ID]
		switch f[0] {
		case "started":
			v.Started = true
		case "unhealthy":
			probe := "liveness"
			if !v.Started {
				probe = "startup"
			}
			v.Kill = "Container " + c.Name + " failed " + probe + " probe, will be restarted"
		default:
			v.Ready = f[0] == "ready"
		}
		w.s.Verdicts[c.ID] = v
	case "made":
		latest().State = Created
	case "lost":
		latest().State = Unknown
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		w.s.Now = w.s.Now.Add(d)
	case "delete":
		n, _ := strconv.Atoi(f[1])
		w.s.Deadline = w.s.Now.Add(time.Duration(n) * time.Second)
	case "fail":
		w.s.Failure = &Failure{Reason: f[1], Message: "because"}
	case "sandbox-dies":
		w.s.Observed.Sandboxes[0].Ready = false
	case "forget":
		w.s.Observed = Observed{Containers: map[string][]Container{}}
	case "drop":
		w.remove(*latest())
	case "kubelet-restarts":
		w.s.Backoff, w.s.Killing, w.s.Retry, w.s.Busy = map[string]time.Duration{}, map[string]time.Time{}, map[string]time.Time{}, false
	case "image":
		specOf(w.pod, f[1]).Image = f[2]
	case "status":
		return w.status()
	case "busy", "idle":
		w.s.Busy = f[0] == "busy"
	case "retry":
		w.s.Retry[strings.Join(f[1:], "")] = w.s.Now.Add(5 * time.Second)
	case "debug":
		w.pod.Spec.EphemeralContainers = append(w.pod.Spec.EphemeralContainers, v1.EphemeralContainer{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: f[1], Image: "x"}})
	case "gate":
		w.old.Conditions = slices.DeleteFunc(w.old.Conditions, func(c v1.PodCondition) bool { return string(c.Type) == f[1] })
		w.old.Conditions = append(w.old.Conditions, v1.PodCondition{Type: v1.PodConditionType(f[1]), Status: v1.ConditionStatus(f[2])})
	case "resize":
		w.resize(t, f[1:], latest)
	default:
		t.Fatalf("unknown command %q", line)
	}
	return ""
}

// resize is how far a change of size has come: it waits (reason), is going on, of a container from one cpu limit to another in
// millicores, by a restart, or of the pod to another, or is done.
func (w *world) resize(t *testing.T, f []string, latest func() *Container) {
	w.s.Resize, w.pending, w.going, w.sizes = map[string]bool{}, nil, nil, nil
	switch f[0] {
	case "waits":
		w.pending = &Failure{Reason: f[1], Message: "because"}
	case "done":
		w.size = allot(w.pod)[""]
	case "pod":
		w.going = &Failure{}
		l := v1.ResourceList{v1.ResourceCPU: resource.MustParse(f[1])}
		w.pod.Spec.Resources = &v1.ResourceRequirements{Requests: l, Limits: l}
	default:
		w.going = &Failure{}
		c := latest()
		var sizes [2]int64
		for i := range sizes {
			n, err := strconv.ParseInt(f[1+i], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sizes[i] = n
		}
		w.sizes = map[string][2]sized{c.ID: {{quota: sizes[0] * 100, period: 100000}, {quota: sizes[1] * 100, period: 100000}}}
		spec := specOf(w.pod, f[0])
		have, want := w.sizes[c.ID][0], w.sizes[c.ID][1]
		spec.Resources.Limits = v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(sizes[1], resource.DecimalSI)}
		w.s.Resize[c.ID] = mustRestart(spec, have, want)
	}
}

func (w *world) status() string {
	p := decide(w.s)
	pauses := map[string]string{}
	for k, d := range p.Backoff {
		pauses[k] = "back-off " + d.String()
	}
	st := podStatus(View{Snapshot: w.s, Backoff: pauses, HostIPs: []string{"192.0.2.1"}, Sizes: w.sizes, Size: w.size, ResizePending: w.pending, Resizing: w.going}, w.old)
	w.old = st
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s ip=%s", st.Phase, st.QOSClass, st.PodIP)
	if st.Resources != nil {
		fmt.Fprintf(&b, " allocated=%s request=%s limit=%s", st.AllocatedResources.Cpu(), st.Resources.Requests.Cpu(), st.Resources.Limits.Cpu())
	}
	for _, c := range st.Conditions {
		fmt.Fprintf(&b, "\n  %s=%s %s %s", c.Type, c.Status, c.Reason, c.Message)
	}
	for _, c := range slices.Concat(st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses) {
		state := ""
		switch {
		case c.State.Waiting != nil:
			state = "waiting " + c.State.Waiting.Reason + " " + c.State.Waiting.Message
		case c.State.Running != nil:
			state = "running"
		case c.State.Terminated != nil:
			state = fmt.Sprintf("terminated %d %s", c.State.Terminated.ExitCode, c.State.Terminated.Reason)
		}
		fmt.Fprintf(&b, "\n  %s: %s ready=%t started=%t restarts=%d", c.Name, state, c.Ready, c.Started != nil && *c.Started, c.RestartCount)
		if last := c.LastTerminationState.Terminated; last != nil && mayRestartAll(w.pod) {
			fmt.Fprintf(&b, " last=%d %s", last.ExitCode, last.Reason)
		}
		if c.Resources != nil && len(c.Resources.Limits) > 0 {
			fmt.Fprintf(&b, " limit=%s", c.Resources.Limits.Cpu())
		}
	}
	return b.String()
}

// TestDecide plays every script of testdata: lines that begin with ">" are commands, what follows is what was decided.
func TestDecide(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, a.Files[0].Data)
			var b strings.Builder
			for _, line := range strings.Split(string(a.Files[1].Data), "\n") {
				cmd, ok := strings.CutPrefix(line, "> ")
				if !ok {
					continue
				}
				fmt.Fprintln(&b, line)
				if out := w.run(t, cmd); out != "" {
					for _, l := range strings.Split(out, "\n") {
						fmt.Fprintln(&b, strings.TrimRight(l, " "))
					}
				}
			}
			if got := b.String(); got != string(a.Files[1].Data) {
				if *update {
					a.Files[1].Data = []byte(got)
					if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
						t.Fatal(err)
					}
					return
				}
				t.Errorf("got:\n%s\nwant:\n%s", got, a.Files[1].Data)
			}
		})
	}
}

// TestNeverTwice: whatever happens, no container runs twice, none starts in a dead sandbox, and a deleted pod ends clean.
func TestNeverTwice(t *testing.T) {
	raw, err := txtar.ParseFile("testdata/sidecar.txtar")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t, raw.Files[0].Data)
		if rapid.Bool().Draw(r, "all") {
			w.pod.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestartAllContainers,
				ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{1}}}}
		}
		w.pod.Spec.RestartPolicy = rapid.SampledFrom([]v1.RestartPolicy{v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever}).Draw(r, "policy")
		check := func() {
			for name, cs := range w.s.Observed.Containers {
				n := 0
				for _, c := range cs {
					if c.State == Running {
						n++
					}
				}
				if n > 1 {
					r.Fatalf("%d instances of %s run", n, name)
				}
			}
		}
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			p := decide(w.s)
			for _, c := range p.Remove {
				if c.State != Exited {
					r.Fatalf("%s is forgotten while it may run", c.Name)
				}
			}
			w.do(p)
			check()
			alive := w.s.Observed.alive()
			switch rapid.IntRange(0, 5).Draw(r, "event") {
			case 0:
				if len(alive) > 0 {
					w.run(t, fmt.Sprintf("exit %s %d", rapid.SampledFrom(alive).Draw(r, "who").Name, rapid.IntRange(0, 1).Draw(r, "code")))
				}
			case 1:
				if len(alive) > 0 {
					w.run(t, "started "+rapid.SampledFrom(alive).Draw(r, "who").Name)
				}
			case 2:
				w.s.Now = w.s.Now.Add(time.Minute)
			case 3:
				if w.s.Observed.ready() != nil && rapid.Bool().Draw(r, "sandbox") {
					w.run(t, "sandbox-dies")
				}
			case 4:
				w.run(t, "status")
			}
		}
		w.run(t, "delete 30")
		for range 40 {
			p := decide(w.s)
			if p.Sandbox || len(p.Start) > 0 {
				r.Fatal("a deleted pod starts something")
			}
			w.do(p)
			for _, c := range w.s.Observed.alive() {
				if _, ok := w.s.Killing[c.ID]; ok {
					w.run(t, "exit "+c.Name+" 137")
				}
			}
			if p.Done {
				if len(w.s.Observed.alive()) > 0 || w.s.Observed.ready() != nil {
					r.Fatal("done while something lives")
				}
				return
			}
		}
		r.Fatal("a deleted pod never ends")
	})
}

func TestBackoff(t *testing.T) {
	var d time.Duration
	var got []string
	for range 7 {
		d = nextBackoff(d, time.Second, 5*time.Minute)
		got = append(got, d.String())
	}
	if s := strings.Join(got, " "); s != "10s 20s 40s 1m20s 2m40s 5m0s 5m0s" {
		t.Error(s)
	}
	if d := nextBackoff(5*time.Minute, 11*time.Minute, 5*time.Minute); d != 10*time.Second {
		t.Error("a container which ran well starts over:", d)
	}
}

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1", "B": "$(A)"}
	lookup := func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	for in, want := range map[string]string{"$(A)": "1", "x$(B)y": "x$(A)y", "$$(A)": "$(A)", "$(C)": "$(C)", "$(A": "$(A", "a$": "a$", "$x": "$x"} {
		if got := expand(in, lookup); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
