package netpol

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what came out into the goldens")

func snapshot(t *testing.T, text string) Snapshot {
	t.Helper()
	s := Snapshot{Node: "a", NodePods: [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:244::/64")},
		Policies: map[string]*Policy{}, Pods: map[string]*Pod{}, Namespaces: map[string]map[string]string{}}
	read := func(doc string, into any) {
		if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
			t.Fatal(err)
		}
	}
	for _, doc := range strings.Split(text, "---\n") {
		switch {
		case strings.HasPrefix(doc, "kind: Namespace\n"):
			var o v1.Namespace
			read(doc, &o)
			s.Namespaces[o.Name] = o.Labels
		case strings.HasPrefix(doc, "kind: Pod\n"):
			var o v1.Pod
			read(doc, &o)
			if p := NewPod(&o); p != nil {
				s.Pods[p.Key] = p
			}
		default:
			var o networkingv1.NetworkPolicy
			read(doc, &o)
			p := NewPolicy(&o)
			s.Policies[p.Key] = p
		}
	}
	return s
}

func TestGolden(t *testing.T) {
	const path = "testdata/policies.txtar"
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := txtar.Format(&txtar.Archive{Comment: ar.Comment, Files: []txtar.File{ar.Files[0], {Name: "plan", Data: []byte(decide(snapshot(t, string(ar.Files[0].Data))).String())}}})
	if *update {
		if err := os.WriteFile(path, out, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want, err := os.ReadFile(path); err != nil || !bytes.Equal(want, out) {
		t.Errorf("differs (run with -update and read the diff): %v\n%s", err, out)
	}
}

func sh(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// Pods with namespaces of their own behind a node, and somebody outside; packets are real.
func TestKernel(t *testing.T) {
	runtime.LockOSThread() // the thread is thrown away with its namespaces
	space := func() netns.NsHandle {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ns.Close() })
		sh(t, "ip link set lo up")
		return ns
	}
	in := func(ns netns.NsHandle) {
		t.Helper()
		if err := netns.Set(ns); err != nil {
			t.Fatal(err)
		}
	}
	node := space()
	sh(t, "sysctl -qw net.ipv4.ip_forward=1")
	const gate = "10.244.0.254"
	where := map[string]netns.NsHandle{}
	for i, ip := range []string{"10.244.0.5", "10.244.0.6", "10.244.0.7", "198.51.100.10", "198.51.100.200"} {
		ns := space()
		where[ip] = ns
		in(node)
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("v%d", i)}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		sh(t, "ip addr add "+gate+"/32 dev "+link.Name)
		sh(t, "ip link set "+link.Name+" up")
		in(ns)
		sh(t, "ip addr add "+ip+"/32 dev eth0")
		sh(t, "ip link set eth0 up")
		sh(t, "ip route add "+gate+" dev eth0")
		sh(t, "ip route add default via "+gate)
		for _, port := range []string{"8080", "5432"} {
			l, err := net.Listen("tcp", ip+":"+port)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}
		in(node)
		sh(t, "ip route add "+ip+" dev "+link.Name)
	}
	reach := func(from, to string) bool {
		t.Helper()
		in(where[from])
		c, err := net.DialTimeout("tcp", to, 250*time.Millisecond)
		in(node)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	check := func(what string, want bool, from, to string) {
		t.Helper()
		if got := reach(from, to); got != want {
			t.Errorf("%s: %s reaches %s is %v, want %v\n%s", what, from, to, got, want, sh(t, "nft list ruleset"))
		}
	}
	const pods = `kind: Namespace
metadata: {name: x}
---
kind: Pod
metadata: {namespace: x, name: web, labels: {app: web}}
spec: {nodeName: a, containers: [{name: c, ports: [{name: http, containerPort: 8080, protocol: TCP}]}]}
status: {podIP: 10.244.0.5}
---
kind: Pod
metadata: {namespace: x, name: db, labels: {app: db}}
spec: {nodeName: a, containers: [{name: c, ports: [{name: sql, containerPort: 5432, protocol: TCP}]}]}
status: {podIP: 10.244.0.6}
`
	const policies = `---
kind: NetworkPolicy
metadata: {namespace: x, name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - {from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}], ports: [{port: http}]}
  egress:
  - {to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: sql}]}
`
	const late = `---
kind: Pod
metadata: {namespace: x, name: late, labels: {app: db}}
spec: {nodeName: a, containers: [{name: c, ports: [{name: sql, containerPort: 8080, protocol: TCP}]}]}
status: {podIP: 10.244.0.7}
`
	in(node)
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	sync := func(text string) {
		t.Helper()
		if err := e.Sync(snapshot(t, text)); err != nil {
			t.Fatal(err)
		}
		if !e.Check() {
			t.Error("the tables are whole, but Check says they are not")
		}
	}
	sync(pods)
	check("no policy", true, "10.244.0.6", "10.244.0.5:8080")
	check("no policy, not known", true, "10.244.0.7", "10.244.0.5:8080")
	sync(pods + policies)
	check("not allowed in", false, "10.244.0.6", "10.244.0.5:8080")
	check("allowed block", true, "198.51.100.10", "10.244.0.5:8080")
	check("allowed block, another port", false, "198.51.100.10", "10.244.0.5:5432")
	check("excepted", false, "198.51.100.200", "10.244.0.5:8080")
	check("allowed out, by the port's name", true, "10.244.0.5", "10.244.0.6:5432")
	check("another port out", false, "10.244.0.5", "10.244.0.6:8080")
	check("not allowed out", false, "10.244.0.5", "198.51.100.10:8080")
	check("a pod that no policy selects", true, "10.244.0.6", "198.51.100.10:8080")
	check("a pod's first packet, before it is known", false, "10.244.0.7", "198.51.100.10:8080")
	check("to a pod that is not known", false, "10.244.0.6", "10.244.0.7:8080")
	sync(pods + late + policies)
	check("known now", true, "10.244.0.7", "198.51.100.10:8080")
	check("chosen now, its own number for the name", true, "10.244.0.5", "10.244.0.7:8080")
	sh(t, "nft delete table ip "+tableName)
	if e.Check() {
		t.Error("the table was deleted, and Check did not see it")
	}
	sync(pods + late + policies)
	check("mended", false, "10.244.0.6", "10.244.0.5:8080")
	sync(pods)
	check("the policy went", true, "10.244.0.6", "10.244.0.5:8080")
	if out := sh(t, "nft list tables"); strings.Contains(out, tableName) {
		t.Errorf("left behind: %s", out)
	}
}
