package proxy

import (
	"context"
	"embed"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/proxy/desired"
	"github.com/sextant-k8s/sextant/pkg/proxy/ipvs"
	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
	"github.com/sextant-k8s/sextant/pkg/proxy/netpol"
)

// The scripts are part of the binary, so that it also runs in a guest.
//
//go:embed testdata/matrix
var matrices embed.FS

// TestMatrix tries every way through Services and policies in both families, in each mode that this kernel has.
//
// A matrix is a script of objects.yaml and cases, and of flows where connections are to outlive the policies. A case is a line
//
//	client target = answer
//
// The client is one of the world's inhabitants. The target is a Service's name, at its cluster IP unless @lb, @ext or @node (its node port
// there) follows, or an inhabitant with a port, like a1:8080 or a1:8080/udp. The answer is everybody who answers, or refused, or silence;
// "one of" before it wants the same one always; "as" behind it says under whose address the client is seen, itself being its own. A
// line that begins with [mode] is for that mode only, and for all others with [!mode]. Every case is tried in both families, but those
// beginning with [v4] or [v6].
func TestMatrix(t *testing.T) {
	scripts, err := matrices.ReadDir("testdata/matrix")
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range modes {
		if mode == "ipvs" && !hasIPVS() {
			continue // go run ./hack/vm -run TestMatrix ./pkg/proxy
		}
		if _, err := (&Config{Mode: mode}).open(mode); err != nil && mode != "ipvs" && hasIPVS() {
			t.Logf("not in this guest: %v", err)
			continue
		}
		for _, s := range scripts {
			t.Run(mode+"/"+strings.TrimSuffix(s.Name(), ".txtar"), func(t *testing.T) {
				text, err := matrices.ReadFile(path.Join("testdata/matrix", s.Name()))
				if err != nil {
					t.Fatal(err)
				}
				files := map[string]string{}
				for _, f := range txtar.Parse(text).Files {
					files[f.Name] = string(f.Data)
				}
				newWorld(t, mode).run(files)
			})
		}
	}
}

func hasIPVS() bool {
	_, err := ipvs.New(ipvs.Config{})
	return err == nil
}

// inhabitant is a pod, a node or somebody outside.
type inhabitant struct {
	node string // where the pod is; empty for others
	at   [2]string
}

// inhabitants of every world: two nodes with two pods each, and two hosts outside.
var inhabitants = map[string]inhabitant{
	"a": {at: [2]string{"192.0.2.10", "2001:db8::10"}}, "b": {at: [2]string{"192.0.2.11", "2001:db8::11"}},
	"a1": {"a", [2]string{"10.244.0.5", "fd00:244::5"}}, "a2": {"a", [2]string{"10.244.0.6", "fd00:244::6"}},
	"b1": {"b", [2]string{"10.244.1.5", "fd00:244:0:1::5"}}, "b2": {"b", [2]string{"10.244.1.6", "fd00:244:0:1::6"}},
	"out": {at: [2]string{"192.0.2.100", "2001:db8::100"}}, "far": {at: [2]string{"192.0.2.200", "2001:db8::200"}},
}

// pods of the nodes, and the addresses under which their pods see them.
var nodePods = map[string][2]netip.Prefix{
	"a": {netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:244::/64")},
	"b": {netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:0:1::/64")},
}

// world is a cluster in namespaces, with what holds its nodes' kernels to the script's objects.
type world struct {
	t        *testing.T
	mode     string
	spaces   map[string]*netlab.Space
	names    map[string]string // by address
	services map[string]*v1.Service
}

func newWorld(t *testing.T, mode string) *world {
	w := &world{t: t, mode: mode, spaces: map[string]*netlab.Space{}, names: map[string]string{}, services: map[string]*v1.Service{}}
	lan := netlab.New(t)
	lan.Bridge("lan")
	for name, one := range inhabitants {
		w.spaces[name] = netlab.New(t)
		for _, at := range one.at {
			w.names[at] = name
		}
		if one.node == "" {
			lan.Plug("lan", name, w.spaces[name], "eth0")
			w.spaces[name].Address("eth0", one.at[0]+"/24", one.at[1]+"/64")
		}
	}
	for name, one := range inhabitants {
		s := w.spaces[name]
		switch {
		case one.node != "":
			node, gates := w.spaces[one.node], [2]string{}
			for f, pods := range nodePods[one.node] {
				gates[f] = pods.Addr().Next().String()
				w.names[gates[f]] = one.node
			}
			node.Join(name, s, "eth0")
			node.Address(name, gates[0]+"/32", gates[1]+"/128")
			s.Address("eth0", one.at[0]+"/32", one.at[1]+"/128")
			s.Route("default", gates[0], "eth0")
			s.Route("default6", gates[1], "eth0")
			node.Route(one.at[0]+"/32", "", name)
			node.Route(one.at[1]+"/128", "", name)
		default:
			if nodePods[name] != [2]netip.Prefix{} {
				s.Forward()
			}
			// Whatever is not a node's goes to node a: outside, that is how balancers' and external addresses are reached.
			gate := inhabitants["a"]
			if name == "a" {
				gate = inhabitants["out"]
			}
			s.Route("default", gate.at[0], "eth0")
			s.Route("default6", gate.at[1], "eth0")
			for node, pods := range nodePods {
				for f := range pods {
					if node != name {
						s.Route(pods[f].String(), inhabitants[node].at[f], "eth0")
					}
				}
			}
		}
		s.Enter()
		for _, at := range one.at {
			for _, port := range []string{"8080", "5432"} {
				netlab.Answer(t, "tcp", net.JoinHostPort(at, port), name)
				netlab.Answer(t, "udp", net.JoinHostPort(at, port), name)
			}
		}
	}
	return w
}

// read sorts the script's objects for each node. Endpoints are named after inhabitants, and stand for both of their addresses.
func (w *world) read(text string) (map[string]*state, map[string]netpol.Changes) {
	w.t.Helper()
	states, policies := map[string]*state{}, map[string]netpol.Changes{}
	for node := range nodePods {
		states[node] = newState(node, func() {})
		states[node].zone = "zone-" + node
		policies[node] = noChanges()
	}
	parse := func(doc string, into any) {
		if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
			w.t.Fatalf("%v\n%s", err, doc)
		}
	}
	for _, doc := range strings.Split(text, "---\n") {
		kind, _, _ := strings.Cut(strings.TrimPrefix(doc, "kind: "), "\n")
		for node, s := range states {
			switch kind {
			case "Service":
				var o v1.Service
				parse(doc, &o)
				w.services[o.Name] = &o
				s.setService(desired.NewService(&o))
			case "EndpointSlice":
				for f, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
					var o discoveryv1.EndpointSlice
					parse(doc, &o)
					o.Name += string(family)
					o.AddressType = family
					for i := range o.Endpoints {
						one := inhabitants[o.Endpoints[i].Addresses[0]]
						o.Endpoints[i].Addresses = []string{one.at[f]}
						if one.node != "" {
							o.Endpoints[i].NodeName = &one.node
						}
					}
					s.setSlice(desired.NewSlice(&o, node))
				}
			case "Namespace":
				var o v1.Namespace
				parse(doc, &o)
				policies[node].Namespaces[o.Name] = &netpol.Namespace{Name: o.Name, Labels: o.Labels}
			case "Pod":
				var o v1.Pod
				parse(doc, &o)
				one := inhabitants[o.Name]
				o.Spec.NodeName = one.node
				o.Status.PodIPs = []v1.PodIP{{IP: one.at[0]}, {IP: one.at[1]}}
				policies[node].Pods[o.Name] = netpol.NewPod(&o)
			case "NetworkPolicy":
				var o networkingv1.NetworkPolicy
				parse(doc, &o)
				policies[node].Policies[o.Name] = netpol.NewPolicy(&o)
			default:
				w.t.Fatalf("what is a %s?", kind)
			}
		}
	}
	return states, policies
}

func (w *world) run(files map[string]string) {
	states, policies := w.read(files["objects.yaml"])
	ctx := context.Background()
	pods := [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}
	for node, s := range states {
		w.spaces[node].Enter()
		b, err := (&Config{Mode: w.mode}).open(w.mode)
		if err != nil {
			w.t.Fatal(err)
		}
		table := &desired.Table{Policy: desired.Policy{Pods: pods, NodePods: nodePods[node], Inside: pods, MasqueradeBit: 14, NodePortsAll: true}}
		if _, err := b.Sync(ctx, table, s.take().apply(table)); err != nil {
			w.t.Fatal(err)
		}
		if !b.Check(ctx) {
			w.t.Errorf("node %s: the tables are whole, but Check says they are not", node)
		}
	}
	flows := w.open(files["flows"])
	for node, s := range policies {
		w.spaces[node].Enter()
		e, err := netpol.New(node)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := e.Sync(s, nodePods[node]); err != nil {
			w.t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for line := range strings.Lines(files["cases"]) {
		for family := range 2 {
			group.Go(func() { w.check(strings.TrimSpace(line), family) })
		}
	}
	group.Wait()
	for line, c := range flows {
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			w.t.Error(err)
		}
		_, err := io.WriteString(c, "still there?")
		heard := make([]byte, 12)
		if _, err2 := io.ReadFull(c, heard); err != nil || err2 != nil {
			w.t.Errorf("the connection %q did not outlive the policies: %v %v", line, err, err2)
		}
		_ = c.Close()
	}
}

// open opens the connections that are to outlive what comes.
func (w *world) open(lines string) map[string]net.Conn {
	w.t.Helper()
	out := map[string]net.Conn{}
	for line := range strings.Lines(lines) {
		client, target, _ := strings.Cut(strings.TrimSpace(line), " ")
		for family := range 2 {
			network, to := w.address(target, family)
			w.spaces[client].Do(func() {
				c, err := net.DialTimeout(network, to, patience)
				if err != nil {
					w.t.Fatalf("%s: %v", line, err)
				}
				if _, err := c.Read(make([]byte, 256)); err != nil {
					w.t.Fatalf("%s: %v", line, err)
				}
				out[fmt.Sprint(line, family)] = c
			})
		}
	}
	return out
}

// address answers where a target is.
func (w *world) address(target string, family int) (network, address string) {
	target, udp := strings.CutSuffix(target, "/udp")
	network = "tcp"
	if udp {
		network = "udp"
	}
	if name, port, ok := strings.Cut(target, ":"); ok {
		return network, net.JoinHostPort(inhabitants[name].at[family], port)
	}
	name, at, _ := strings.Cut(target, "@")
	svc := w.services[name]
	if svc == nil {
		w.t.Errorf("no service %s", name)
		return network, ""
	}
	port := svc.Spec.Ports[0]
	if port.Protocol == v1.ProtocolUDP {
		network = "udp"
	}
	of := func(all []string) string {
		i := slices.IndexFunc(all, func(s string) bool { return strings.Contains(s, ":") == (family == 1) })
		return net.JoinHostPort(all[i], fmt.Sprint(port.Port))
	}
	switch at {
	case "":
		return network, of(svc.Spec.ClusterIPs)
	case "ext":
		return network, of(svc.Spec.ExternalIPs)
	case "lb":
		var all []string
		for _, in := range svc.Status.LoadBalancer.Ingress {
			all = append(all, in.IP)
		}
		return network, of(all)
	}
	return network, net.JoinHostPort(inhabitants[at].at[family], fmt.Sprint(port.NodePort))
}

// patience is longer than a SYN's repetition: over IPv6 the first refusal finds the socket still busy with connecting.
const patience = 1500 * time.Millisecond

// check tries one case; the calls of all go out at once.
func (w *world) check(line string, family int) {
	only, rest, ok := strings.Cut(line, "] ")
	if only, bracket := strings.CutPrefix(only, "["); bracket && ok {
		line = rest
		mode, not := strings.CutPrefix(only, "!")
		if strings.HasPrefix(mode, "v") {
			if only != [2]string{"v4", "v6"}[family] {
				return
			}
		} else if (mode == w.mode) == not {
			return
		}
	}
	if line == "" || line[0] == '#' {
		return
	}
	what, want, _ := strings.Cut(line, " = ")
	client, target, _ := strings.Cut(what, " ")
	network, to := w.address(target, family)
	want, seen, _ := strings.Cut(want, " as ")
	if seen == "itself" {
		seen = client
	}
	want, same := strings.CutPrefix(want, "one of ")
	left := map[string]bool{}
	for _, who := range strings.Fields(want) {
		left[who] = true
	}
	first, late := "", 0
	for range 60 {
		var said string
		w.spaces[client].Do(func() { said = netlab.Ask(network, to, patience) })
		who, from, _ := strings.Cut(said, " from ")
		if first == "" {
			first = who
		}
		if late < 3 && who == netlab.Silence && !slices.Contains(strings.Fields(want), who) {
			late++ // a machine with much else to do
			if first == who {
				first = ""
			}
			continue
		}
		if !slices.Contains(strings.Fields(want), who) || same && who != first {
			w.t.Errorf("IPv%d %q: said %q at %s %s", 4+2*family, line, said, network, to)
			return
		}
		// A pod that reaches itself through a Service must not see itself.
		name := w.names[from]
		if hairpin := who == client && !strings.Contains(target, ":") && inhabitants[who].node != ""; hairpin && name == client || seen != "" && who != client && name != seen {
			w.t.Errorf("IPv%d %q: %s saw it as %s (%s)", 4+2*family, line, who, name, from)
			return
		}
		delete(left, who)
		if len(left) == 0 && !same || who == netlab.Silence || who == netlab.Refused {
			return
		}
	}
	if !same {
		w.t.Errorf("IPv%d %q: never heard %v", 4+2*family, line, left)
	}
}
