package main

import (
	"fmt"
	"os/exec"
	"strings"
)

// grantControllers binds the default role of every controller to the controller-manager's own user, which is the one
// under which it does all its work. It gets the sum of what the controllers may, and no more than that.
func grantControllers() error {
	config := "--kubeconfig=" + adminConfig()
	names, err := exec.Command(bin("ctl"), config, "get", "clusterroles", "-o", "name").Output()
	if err != nil {
		return fmt.Errorf("list the default roles: %w", err)
	}
	var text strings.Builder
	for _, line := range strings.Fields(string(names)) {
		_, role, _ := strings.Cut(line, "/")
		controller, ok := strings.CutPrefix(role, "system:controller:")
		if !ok {
			continue
		}
		fmt.Fprintf(&text, `---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "sextant:controller-manager:%s"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %q}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:kube-controller-manager"}]
`, controller, role)
	}
	apply := exec.Command(bin("ctl"), config, "apply", "-f", "-")
	apply.Stdin = strings.NewReader(text.String())
	if said, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("bind the controllers' roles: %w: %s", err, said)
	}
	return nil
}
