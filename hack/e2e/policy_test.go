//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNetworkPolicy closes a deployment to all, and opens it to some, on the node and across, by pod and by Service, in whatever mode the cluster runs.
func TestNetworkPolicy(t *testing.T) {
	c := newCluster(t, "e2e-policy")
	url := c.web(2)[0]
	for node := range nodeIPs {
		c.on(node, "friend-"+node, "sleep 1000")
		c.on(node, "other-"+node, "sleep 1000")
		c.kubectl("label", "pod", "friend-"+node, "role=friend")
	}
	urls := []string{url}
	for _, ip := range strings.Fields(c.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}")) {
		urls = append(urls, "http://"+ip+"/hostname")
	}
	check := func(when, who string, want bool) {
		t.Helper()
		for node := range nodeIPs {
			for _, u := range urls {
				c.within(20*time.Second, fmt.Sprintf("%s: %s-%s reaches %s is %v", when, who, node, u, want), func() error {
					said, err := c.tries(10*time.Second, "exec", who+"-"+node, "--", "wget", "-qO-", "-T", "1", u)
					if got := err == nil && strings.HasPrefix(said, "web-"); got != want {
						return fmt.Errorf("it is %v: %s %w", got, said, err)
					}
					return nil
				})
			}
		}
	}
	apply := func(text string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.kubectl("apply", "-f", file)
	}
	check("without policies", "other", true)
	apply(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
`)
	check("closed", "other", false)
	check("closed", "friend", false)
	apply(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 80}]}]
`)
	check("open to friends", "friend", true)
	check("open to friends", "other", false)
	c.kubectl("delete", "networkpolicy", "closed", "friends")
	check("open again", "other", true)
}
