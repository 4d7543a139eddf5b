//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// nodeIPs are the addresses of the two nodes, by name.
var nodeIPs = map[string]string{"node1": "10.89.0.11", "node2": "10.89.0.12"}

// ask asks a URL of a web deployment on a fresh connection, and answers the name of the pod that spoke.
func ask(url string) (string, error) {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasPrefix(string(body), "web-") {
		return "", fmt.Errorf("%s said %q, %w", url, body, err)
	}
	return strings.TrimSpace(string(body)), nil
}

// answers tells whether a URL of a web deployment is answered.
func answers(url string) error {
	_, err := ask(url)
	return err
}

// web makes the deployment and its service, and answers the URLs at which they can be reached: the cluster IP, and the
// node port on either node.
func (c cluster) web(replicas int) []string {
	c.t.Helper()
	c.kubectl("create", "deployment", "web", "--image="+c.image(), fmt.Sprintf("--replicas=%d", replicas), "--", "httpd", "-f", "-p", "80", "-h", "/etc")
	c.kubectl("expose", "deployment", "web", "--port=80", "--type=NodePort")
	c.kubectl("rollout", "status", "deployment/web", "--timeout="+(time.Minute*slower).String())
	address := c.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort}")
	ip, port, _ := strings.Cut(address, " ")
	return []string{"http://" + ip + "/hostname", "http://" + nodeIPs["node1"] + ":" + port + "/hostname", "http://" + nodeIPs["node2"] + ":" + port + "/hostname"}
}

// on starts a pod on a node, past the scheduler.
func (c cluster) on(node, name string, script string) {
	c.t.Helper()
	c.box(name, script, "--restart=Never", fmt.Sprintf(`--overrides={"spec":{"nodeName":%q,"terminationGracePeriodSeconds":1}}`, node))
}

// TestWeb is what a user tries first: four replicas spread over both nodes, asked by every way from everywhere.
func TestWeb(t *testing.T) {
	eachClient(t, func(t *testing.T, with client) {
		c := newClusterWith(t, with, "e2e-web-"+with.name)
		c.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout="+(time.Minute*slower).String())
		urls := c.web(4)
		on := c.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}")
		for _, node := range strings.Fields(c.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")) {
			if n := strings.Count(on, node); n < 1 || n > 2 {
				t.Errorf("four replicas are not spread over the nodes, %d are on %s: %s", n, node, on)
			}
		}
		t.Run("host", func(t *testing.T) {
			c := c.of(t)
			for _, u := range urls {
				c.within(10*time.Second, u+" answers the host", func() error { return answers(u) })
				seen := map[string]bool{}
				c.within(20*time.Second, "all four replicas are reached by "+u, func() error {
					pod, err := ask(u)
					if seen[pod] = true; err == nil && len(seen) < 4 {
						err = fmt.Errorf("only %v", seen)
					}
					return err
				})
			}
		})
		for node := range nodeIPs {
			t.Run(node, func(t *testing.T) { c.of(t).asksFrom(node, urls) })
		}
	})
}

// asksFrom asks for the web service, by its addresses and its names, from a pod on the node.
func (c cluster) asksFrom(node string, urls []string) {
	c.t.Helper()
	asker := "ask-" + node
	c.on(node, asker, "sleep 1000")
	for _, name := range []string{"web", "web." + c.namespace, "web." + c.namespace + ".svc", "web." + c.namespace + ".svc.cluster.local"} {
		urls = append(urls, "http://"+name+"/hostname")
	}
	for _, u := range urls {
		c.within(10*time.Second, u+" answers a pod on "+node, func() error {
			if said := c.kubectl("exec", asker, "--", "wget", "-qO-", "-T", "5", u); !strings.HasPrefix(said, "web-") {
				return fmt.Errorf("got %q", said)
			}
			return nil
		})
	}
	// The nslookup of today's busybox takes a name with a dot as it stands, without the search list; so it does with upstream.
	if said, err := c.tries(20*time.Second, "exec", asker, "--", "nslookup", "kubernetes.default"); err == nil || !strings.Contains(said, "can't find kubernetes.default") {
		c.t.Errorf("nslookup kubernetes.default on %s: %v", node, err)
	}
	said := c.kubectl("exec", asker, "--", "nslookup", "kubernetes.default.svc.cluster.local")
	for _, want := range []string{"10.96.0.10", "kubernetes.default.svc.cluster.local", "10.96.0.1\n"} {
		if !strings.Contains(said+"\n", want) {
			c.t.Errorf("nslookup kubernetes.default.svc.cluster.local on %s has no %q: %s", node, want, said)
		}
	}
	if said := c.kubectl("exec", asker, "--", "cat", "/etc/resolv.conf"); !strings.Contains(said, "search "+c.namespace+".svc.cluster.local svc.cluster.local cluster.local") || !strings.Contains(said, "options ndots:5") {
		c.t.Errorf("resolv.conf on %s: %s", node, said)
	}
}

// of is the same cluster for a subtest.
func (c cluster) of(t *testing.T) cluster {
	c.t = t
	return c
}

// traffic asks the URLs over and over, so that no moment at which pods could not be reached goes unnoticed.
type traffic struct {
	answered atomic.Int64
	failed   chan error
	stop     chan struct{}
	stopped  chan struct{}
}

func watchTraffic(urls []string) *traffic {
	w := &traffic{failed: make(chan error, 10), stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(w.stopped)
		for i := 0; ; i++ {
			select {
			case <-w.stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if err := answers(urls[i%len(urls)]); err == nil {
				w.answered.Add(1)
			} else {
				select {
				case w.failed <- fmt.Errorf("at %s: %w", time.Now().Format("15:04:05.000"), err):
				default: // ten are enough to see what is wrong
				}
			}
		}
	}()
	return w
}

// flows fails the test unless, from now on, some requests are answered.
func (w *traffic) flows(c cluster, when string) {
	c.t.Helper()
	before := w.answered.Load()
	c.within(10*time.Second, "traffic flows while "+when, func() error {
		if n := w.answered.Load() - before; n < 6 {
			return fmt.Errorf("%d requests answered", n)
		}
		return nil
	})
}

// end stops asking, and fails the test if any request went unanswered.
func (w *traffic) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	<-w.stopped
	close(w.failed)
	for err := range w.failed {
		t.Errorf("pods noticed: %v", err)
	}
}
