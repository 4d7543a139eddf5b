package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
)

// asDaemon makes the test binary the daemon itself, with the flags that follow: it can be killed like one.
const asDaemon = "SEXTANT_TEST_PROXY"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) == "" {
		os.Exit(m.Run())
	}
	c := &Config{}
	f := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
	c.AddFlags(f)
	err := f.Parse(os.Args[1:])
	if err == nil {
		var p *Proxy
		if p, err = New(c); err == nil {
			err = p.Run(context.Background())
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// daemon is the proxy of a node, which is killed and started again.
type daemon struct {
	t     *testing.T
	space *netlab.Space
	args  []string
	log   bytes.Buffer
	cmd   *exec.Cmd
}

func (d *daemon) start() {
	d.t.Helper()
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd = exec.Command(self, d.args...)
	d.cmd.Env = append(os.Environ(), asDaemon+"=1")
	d.cmd.Stderr = &d.log
	d.space.Do(func() { err = d.cmd.Start() })
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// newDaemon starts a proxy on node a of the world, beside a cluster of its own.
func newDaemon(w *world, args ...string) (*daemon, *cluster) {
	t := w.t
	t.Helper()
	w.spaces["a"].Enter()
	c, server := newCluster(t)
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\ncurrent-context: c\n", server)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.put("nodes", "a", &v1.Node{Spec: v1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24", "fd00:244::/64"}},
		Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "192.0.2.10"}, {Type: v1.NodeInternalIP, Address: "2001:db8::10"}}}})
	d := &daemon{t: t, space: w.spaces["a"], args: append([]string{"--kubeconfig=" + kubeconfig, "--hostname-override=a", "--proxy-mode=" + w.mode, "--pod-network=none",
		"--cluster-cidr=10.244.0.0/16,fd00:244::/48", "--iptables-sync-period=1s", "--v=4"}, args...)}
	d.start()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the proxy said:\n%s", d.log.String())
		}
	})
	return d, c
}

// member is an endpoint that comes and goes.
type member struct {
	at     inhabitant
	port   int
	called atomic.Int64 // when last, unix nanoseconds
	stop   func()
	there  bool
}

const (
	steady = 2           // of the members never go
	grace  = time.Second // is what a pod has at least until it ends, counted from when the proxy heard of it; the usual is 30 s
)

// asker is one goroutine of the load.
type asker struct {
	kind string // asks for a new place each time, like others of the kind; empty where it stays with one
	done atomic.Int64
}

// chaos is endpoints under load.
type chaos struct {
	*world
	*cluster
	members []*member
	asked   atomic.Int64
	askers  []*asker
	lost    atomic.Int64
	again   atomic.Int64
}

func (c *chaos) service(name string, protocol v1.Protocol, last int) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeNodePort,
		ClusterIP: fmt.Sprintf("10.96.0.%d", last), ClusterIPs: []string{fmt.Sprintf("10.96.0.%d", last), fmt.Sprintf("fd00:96::%d", last)},
		Ports: []v1.ServicePort{{Port: 80, NodePort: int32(30000 + last), Protocol: protocol, TargetPort: intstr.FromInt32(8080)}}}}
}

// publish writes the slices: one for each member, as each has a port of its own.
func (c *chaos) publish(m *member, ready bool) {
	for f, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		for _, s := range []struct {
			name     string
			protocol v1.Protocol
		}{{"web", v1.ProtocolTCP}, {"dns", v1.ProtocolUDP}} {
			port, no, yes := int32(m.port), false, true
			slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Labels: map[string]string{discoveryv1.LabelServiceName: s.name}},
				AddressType: family, Ports: []discoveryv1.EndpointPort{{Port: &port, Protocol: &s.protocol, Name: new(string)}},
				Endpoints: []discoveryv1.Endpoint{{Addresses: []string{m.at.at[f]}, NodeName: &m.at.node}}}
			if !ready {
				slice.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
			}
			c.put("endpointslices", strings.ToLower(fmt.Sprintf("%s-%s-%d", s.name, family, m.port)), slice)
		}
	}
}

// come makes a member listen, and then tells of it.
func (c *chaos) come(m *member) {
	var stops []func()
	w := c.spaces[c.names[m.at.at[0]]]
	w.Do(func() {
		for _, at := range m.at.at {
			for _, network := range []string{"tcp", "udp"} {
				stop, err := netlab.Listen(network, net.JoinHostPort(at, fmt.Sprint(m.port)), fmt.Sprint(m.port))
				for began := time.Now(); err != nil && time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
					// A daemon that is being started has this process's sockets until it is itself.
					stop, err = netlab.Listen(network, net.JoinHostPort(at, fmt.Sprint(m.port)), fmt.Sprint(m.port))
				}
				if err != nil {
					panic(err)
				}
				stops = append(stops, stop)
			}
		}
	})
	m.stop = func() {
		for _, stop := range stops {
			stop()
		}
	}
	m.there = true
	c.publish(m, true)
}

// leave tells that a member leaves, and ends it once nobody calls it any more: everybody has asked since, and each kind so often that
// somebody would have met it. A proxy that listed just before needs its moment to write what it listed, and then the news.
func (c *chaos) leave(ctx context.Context, m *member) {
	c.publish(m, false)
	const often = 120
	for told := c.version(); ctx.Err() == nil && !c.knows(told); time.Sleep(10 * time.Millisecond) {
	}
	began, last, before := time.Now(), int64(-1), make([]int64, len(c.askers))
	for {
		if called := m.called.Load(); called != last {
			last = called
			for i, a := range c.askers {
				before[i] = a.done.Load()
			}
		}
		sums, all := map[string]int64{}, true
		for i, a := range c.askers {
			n := a.done.Load() - before[i]
			all = all && n >= 3
			sums[a.kind] += n
		}
		for kind, n := range sums {
			all = all && (kind == "" || n >= often)
		}
		all = all && time.Since(began) > grace
		if all && m.called.Load() == last {
			break
		}
		if ctx.Err() != nil {
			return // nobody calls anybody any more
		}
		if time.Since(began) > 30*time.Second {
			c.t.Errorf("%d is still called, 30 s after it went; the node's flows:\n%s", m.port, c.flows(m))
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.stop()
	m.there = false
}

// flows are those that the node still leads to a member.
func (c *chaos) flows(m *member) string {
	var out []byte
	for _, family := range []string{"ipv4", "ipv6"} {
		c.spaces["a"].Do(func() {
			said, err := exec.Command("conntrack", "-L", "-f", family, "-p", "udp", "--reply-port-src", fmt.Sprint(m.port)).CombinedOutput()
			out = fmt.Appendf(out, "%s%v\n", said, err)
		})
	}
	return string(out)
}

// heard notes whose answer it was.
func (c *chaos) heard(said string) bool {
	c.asked.Add(1)
	var port int
	if _, err := fmt.Sscanf(said, "%d from", &port); err != nil || port < 9000 || port >= 9000+len(c.members) {
		return false
	}
	c.members[port-9000].called.Store(time.Now().UnixNano())
	return true
}

// attempts is how often a question is asked over UDP, which may lose what is on its way while its flow is led elsewhere.
const attempts = 3

// load asks from a client until ctx ends, over new connections.
func (c *chaos) load(ctx context.Context, a *asker, client, network, to string) {
	tries, wait := 1, 10*time.Second
	if network == "udp" {
		tries, wait = attempts, 500*time.Millisecond
	}
	for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		said := ""
		for i := range tries {
			if i > 0 {
				c.again.Add(1)
			}
			c.spaces[client].Do(func() { said = netlab.Ask(network, to, wait) })
			if strings.Contains(said, " from ") {
				break
			}
		}
		if !c.heard(said) {
			c.lost.Add(1)
			c.t.Logf("lost at %s: %s -> %s %s: %s", time.Now().Format("05.000"), client, network, to, said)
		}
		a.done.Add(1)
	}
}

// talk keeps a UDP socket, whose flow must follow the endpoints.
func (c *chaos) talk(ctx context.Context, a *asker, client, to string) {
	var conn net.Conn
	var err error
	c.spaces[client].Do(func() { conn, err = net.Dial("udp", to) })
	if err != nil {
		c.t.Error(err)
		return
	}
	defer conn.Close() //nolint:errcheck // the test ends
	for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		var n int
		var err error
		text := make([]byte, 64)
		for i := range attempts {
			if i > 0 {
				c.again.Add(1)
			}
			_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
			if _, err = io.WriteString(conn, "who"); err == nil {
				n, err = conn.Read(text)
			}
			if err == nil {
				break
			}
		}
		if err != nil || !c.heard(string(text[:n])) {
			c.lost.Add(1)
			c.t.Logf("lost at %s: %s -> %s, over a socket that stays: %v %s", time.Now().Format("05.000"), client, to, err, text[:n])
		}
		a.done.Add(1)
	}
}

// stay keeps a connection to a member that does not go.
func (c *chaos) stay(ctx context.Context, client, to string) {
	var conn net.Conn
	for range 200 {
		var err error
		c.spaces[client].Do(func() { conn, err = net.DialTimeout("tcp", to, time.Second) })
		if err != nil {
			c.t.Error(err)
			return
		}
		text := make([]byte, 64)
		n, err := conn.Read(text)
		var port int
		if _, err2 := fmt.Sscanf(string(text[:n]), "%d from", &port); err == nil && err2 == nil && port < 9000+steady {
			break
		}
		_ = conn.Close()
	}
	defer conn.Close() //nolint:errcheck // the test ends
	for ctx.Err() == nil {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, err := io.WriteString(conn, "ping")
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 4))
		}
		if err != nil {
			c.t.Errorf("an established connection of %s to %s was dropped: %v", client, to, err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Endpoints come and go under load, and the proxy is killed and started again meanwhile: no request is lost, no established connection
// dropped. SEXTANT_CHAOS=5m says for how long.
func TestChaos(t *testing.T) {
	length := 10 * time.Second
	if s := os.Getenv("SEXTANT_CHAOS"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range modes {
		if _, err := (&Config{Mode: mode}).open(mode); err != nil {
			t.Logf("%s: %v", mode, err)
			continue
		}
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mode)
			d, cl := newDaemon(w)
			c := &chaos{world: w, cluster: cl}
			c.put("services", "web", c.service("web", v1.ProtocolTCP, 10))
			c.put("services", "dns", c.service("dns", v1.ProtocolUDP, 11))
			for i, who := range []string{"a2", "b1", "a1", "a2", "b1", "b2"} {
				c.members = append(c.members, &member{at: inhabitants[who], port: 9000 + i})
				c.come(c.members[i])
			}
			for _, at := range []string{"10.96.0.10:80", "[fd00:96::10]:80", "192.0.2.10:30010", "[2001:db8::10]:30010"} {
				c.await(t, "tcp", at)
			}
			for _, at := range []string{"10.96.0.11:80", "[fd00:96::11]:80"} {
				c.await(t, "udp", at)
			}
			ctx, stop := context.WithTimeout(context.Background(), length)
			defer stop()
			var group sync.WaitGroup
			asks := func(kind string, ask func(*asker)) {
				a := &asker{kind: kind}
				c.askers = append(c.askers, a)
				group.Go(func() { ask(a) })
			}
			for _, client := range []string{"a1", "out", "a"} {
				for f, at := range []string{"10.96.0.10", "fd00:96::10"} {
					asks(fmt.Sprint("tcp", f), func(a *asker) { c.load(ctx, a, client, "tcp", net.JoinHostPort(at, "80")) })
					asks(fmt.Sprint("tcp", f), func(a *asker) { c.load(ctx, a, client, "tcp", net.JoinHostPort(inhabitants["a"].at[f], "30010")) })
					group.Go(func() { c.stay(ctx, client, net.JoinHostPort(at, "80")) })
				}
				for f, at := range []string{"10.96.0.11", "fd00:96::11"} {
					asks(fmt.Sprint("udp", f), func(a *asker) { c.load(ctx, a, client, "udp", net.JoinHostPort(at, "80")) })
					asks("", func(a *asker) { c.talk(ctx, a, client, net.JoinHostPort(at, "80")) })
				}
			}
			flaps := 0
			for _, m := range c.members[steady:] {
				group.Go(func() {
					for ctx.Err() == nil {
						time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
						c.leave(ctx, m)
						if ctx.Err() != nil {
							return
						}
						time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
						c.come(m)
					}
				})
			}
			for ctx.Err() == nil {
				select {
				case <-ctx.Done():
				case <-time.After(2*time.Second + time.Duration(rand.IntN(1000))*time.Millisecond):
					d.kill()
					fmt.Fprintln(&d.log, time.Now().Format("05.000"), "killed")
					time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
					d.start()
					fmt.Fprintln(&d.log, time.Now().Format("05.000"), "started")
					flaps++
				}
			}
			group.Wait()
			t.Logf("%d requests, %d lost, %d asked again over UDP, %d changes, %d deaths of the proxy", c.asked.Load(), c.lost.Load(), c.again.Load(), c.version(), flaps)
			if lost := c.lost.Load(); lost > 0 {
				t.Errorf("%d requests were lost", lost)
			}
			c.mend(t)
		})
	}
}

// await waits until a Service answers.
func (c *chaos) await(t *testing.T, network, at string) {
	t.Helper()
	said := ""
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		c.spaces["a1"].Do(func() { said = netlab.Ask(network, at, 200*time.Millisecond) })
		if strings.Contains(said, " from ") {
			return
		}
	}
	t.Fatalf("%s does not answer: %s", at, said)
}

// mend takes rules away, which come back. What other proxies serve was never asked for.
func (c *chaos) mend(t *testing.T) {
	c.mu.Lock()
	for _, resource := range []string{"services", "endpointslices"} {
		if got := c.cluster.asked[resource]; got != "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless" {
			t.Errorf("%s were asked for by %q", resource, got)
		}
	}
	c.mu.Unlock()
	c.spaces["a"].Enter()
	if c.mode == "nftables" {
		netlab.Sh(t, "nft delete table ip kube-proxy")
	} else {
		netlab.Sh(t, "iptables-legacy -w -t nat -F KUBE-SERVICES")
	}
	c.await(t, "tcp", "10.96.0.10:80")
}
