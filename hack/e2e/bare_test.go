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

// TestLoadBalancer: a service of type LoadBalancer gets an address of the pool, at which everybody reaches its pods.
func TestLoadBalancer(t *testing.T) {
	c := newCluster(t, "e2e-balancer")
	c.kubectl("create", "deployment", "web", "--image="+c.image(), "--replicas=2", "--", "httpd", "-f", "-p", "80", "-h", "/etc")
	c.kubectl("expose", "deployment", "web", "--port=80", "--type=LoadBalancer")
	c.kubectl("wait", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "service/web", "--timeout="+(20*time.Second*slower).String())
	c.kubectl("rollout", "status", "deployment/web", "--timeout="+(time.Minute*slower).String())
	ip := c.kubectl("get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
	c.within(10*time.Second, ip+" answers the host", func() error { return answers("http://" + ip + "/hostname") })
	for _, node := range []string{"node1", "node2"} {
		c.on(node, "asks-"+node, "sleep 600")
		c.within(10*time.Second, ip+" answers a pod of "+node, func() error {
			text, err := c.tries(5*time.Second, "exec", "asks-"+node, "--", "wget", "-q", "-O", "-", "http://"+ip+"/hostname")
			if err == nil && !strings.HasPrefix(text, "web-") {
				err = fmt.Errorf("it said %q", text)
			}
			return err
		})
	}
}

// TestClaim: a claim of no class is a directory of the node that its pod came to: what is written there stays when the pod
// goes, can be written by any user, brings the next pod to the same node, and is gone with the claim.
func TestClaim(t *testing.T) {
	c := newCluster(t, "e2e-claim")
	manifest := filepath.Join(t.TempDir(), "claim.yaml")
	text := `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
`
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.kubectl("apply", "-f", manifest)
	uses := func(name, script string) string {
		c.box(name, script+"; sleep 600", "--restart=Never", fmt.Sprintf(`--overrides={"spec":{"terminationGracePeriodSeconds":1,"securityContext":{"runAsUser":1000},
			"volumes":[{"name":"data","persistentVolumeClaim":{"claimName":"data"}}],"containers":[{"name":%q,"image":%q,"command":["sh","-c",%q],"volumeMounts":[{"name":"data","mountPath":"/data"}]}]}}`,
			name, c.image(), script+"; sleep 600"))
		return c.kubectl("get", "pod", name, "-o", "jsonpath={.spec.nodeName}")
	}
	first := uses("writes", "echo kept > /data/file")
	volume := c.kubectl("get", "persistentvolumeclaim", "data", "-o", "jsonpath={.spec.volumeName}")
	c.kubectl("delete", "pod", "writes")
	if second := uses("reads", "true"); second != first {
		t.Errorf("the claim is on %s, its next pod on %s", first, second)
	}
	if got := c.kubectl("exec", "reads", "--", "cat", "/data/file"); got != "kept" {
		t.Errorf("the file holds %q", got)
	}
	c.kubectl("delete", "pod", "reads")
	c.kubectl("delete", "persistentvolumeclaim", "data")
	c.within(30*time.Second, "the volume goes", func() error {
		text, err := c.tries(5*time.Second, "get", "persistentvolume", volume, "--ignore-not-found")
		if err == nil && text != "" {
			err = fmt.Errorf("it is there: %s", text)
		}
		return err
	})
	if _, err := os.Stat(filepath.Join(c.root, "_out/volumes", volume)); !os.IsNotExist(err) {
		t.Errorf("what was on it is left: %v", err)
	}
}
