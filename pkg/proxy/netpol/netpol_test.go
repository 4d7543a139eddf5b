package netpol

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/proxy/netlab"
)

var update = flag.Bool("update", false, "write what came out into the goldens")

func objects(t *testing.T, text string) Changes {
	t.Helper()
	c := nothing()
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
			c.Namespaces[o.Name] = &Namespace{o.Name, o.Labels}
		case strings.HasPrefix(doc, "kind: Pod\n"):
			var o v1.Pod
			read(doc, &o)
			if p := NewPod(&o); p != nil {
				c.Pods[p.Key] = p
			}
		default:
			var o networkingv1.NetworkPolicy
			read(doc, &o)
			p := NewPolicy(&o)
			c.Policies[p.Key] = p
		}
	}
	return c
}

func nothing() Changes {
	return Changes{map[string]*Policy{}, map[string]*Pod{}, map[string]*Namespace{}}
}

// from answers what leads from one state to another: what is gone is nil.
func from(was, is Changes) Changes {
	return Changes{gone(was.Policies, is.Policies), gone(was.Pods, is.Pods), gone(was.Namespaces, is.Namespaces)}
}

func gone[T any](was, is map[string]*T) map[string]*T {
	out := maps.Clone(is)
	for key := range was {
		if is[key] == nil {
			out[key] = nil
		}
	}
	return out
}

func TestGolden(t *testing.T) {
	const path = "testdata/policies.txtar"
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	plan := ""
	for family := range 2 {
		b := newBook(family, "a")
		b.apply(objects(t, string(ar.Files[0].Data)))
		b.take(false)
		plan += b.String()
	}
	out := txtar.Format(&txtar.Archive{Comment: ar.Comment, Files: []txtar.File{ar.Files[0], {Name: "plan", Data: []byte(plan)}}})
	if *update {
		if err := os.WriteFile(path, out, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want, err := os.ReadFile(path); err != nil || !bytes.Equal(want, out) {
		t.Errorf("differs (run with -update and read the diff): %v\n%s", err, out)
	}
}

// Pods with namespaces of their own behind a node, and somebody outside; packets are real.
func TestKernel(t *testing.T) {
	node := netlab.New(t)
	node.Forward()
	const gate = "10.244.0.254"
	where := map[string]*netlab.Space{}
	for i, ip := range []string{"10.244.0.5", "10.244.0.6", "10.244.0.7", "198.51.100.10", "198.51.100.200"} {
		s, link := netlab.New(t), fmt.Sprintf("v%d", i)
		where[ip] = s
		node.Join(link, s, "eth0")
		node.Address(link, gate+"/32")
		s.Address("eth0", ip+"/32")
		s.Route("default", gate, "eth0")
		for _, port := range []string{"8080", "5432"} {
			netlab.Answer(t, "tcp", ip+":"+port, ip)
		}
		node.Route(ip+"/32", "", link)
	}
	reach := func(from, to string) bool {
		t.Helper()
		var who string
		where[from].Do(func() { who = netlab.Who("tcp", to, 250*time.Millisecond) })
		return strings.HasPrefix(to, who+":")
	}
	check := func(what string, want bool, from, to string) {
		t.Helper()
		if got := reach(from, to); got != want {
			t.Errorf("%s: %s reaches %s is %v, want %v\n%s", what, from, to, got, want, netlab.Sh(t, "nft list ruleset"))
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
	node.Enter()
	e, err := New("a")
	if err != nil {
		t.Fatal(err)
	}
	held := nothing()
	sync := func(text string) {
		t.Helper()
		is := objects(t, text)
		if err := e.Sync(from(held, is), [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:244::/64")}); err != nil {
			t.Fatal(err)
		}
		held = is
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
	netlab.Sh(t, "nft delete table ip "+tableName)
	if e.Check() {
		t.Error("the table was deleted, and Check did not see it")
	}
	sync(pods + late + policies)
	check("mended", false, "10.244.0.6", "10.244.0.5:8080")
	sync(pods)
	check("the policy went", true, "10.244.0.6", "10.244.0.5:8080")
	if out := netlab.Sh(t, "nft list tables"); strings.Contains(out, tableName) {
		t.Errorf("left behind: %s", out)
	}
}

// Others' tools read every kind of rule and set that policies make.
func TestOthersReadThePolicies(t *testing.T) {
	ar, err := txtar.ParseFile("testdata/policies.txtar")
	if err != nil {
		t.Fatal(err)
	}
	netlab.New(t)
	e, err := New("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Sync(objects(t, string(ar.Files[0].Data)), [2]netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:244::/64")}); err != nil {
		t.Fatal(err)
	}
	list := netlab.Readable(t, func(string) bool { return false })
	for _, want := range []string{"table ip " + tableName, "table ip6 " + tableName, "set block-", "set named-"} {
		if !strings.Contains(list, want) {
			t.Errorf("nft does not list %q:\n%s", want, list)
		}
	}
}
