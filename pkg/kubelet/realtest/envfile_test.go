package realtest

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// TestVariablesFromFiles has an init container write what the next container finds in its environment.
func TestVariablesFromFiles(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	spec := func(write, key, optional string) string {
		return fmt.Sprintf(`{restartPolicy: Never, volumes: [{name: v, emptyDir: {}}], initContainers: [{name: i, command: [sh, -c, %q], volumeMounts: [{name: v, mountPath: /v}]}],
containers: [{name: c, command: [sh, -c, 'echo "${A-unset}"; ls -d /v 2>/dev/null; true'], env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: dir/env, key: %s, optional: %s}}}]}]}`, write, key, optional)
	}
	for _, c := range []struct{ name, write, key, optional, want string }{
		{"plain", `mkdir /v/dir; echo "# c"  > /v/dir/env; echo "ONE='it is'" >> /v/dir/env`, "ONE", "false", "it is\n"},
		{"no-key", `mkdir /v/dir; echo "ONE='1'" > /v/dir/env`, "TWO", "true", "unset\n"},
		{"no-file", `true`, "ONE", "true", "unset\n"},
	} {
		s.create(c.name, spec(c.write, c.key, c.optional))
		s.ended(c.name, v1.PodSucceeded)
		if got := s.logs(c.name, &v1.PodLogOptions{Container: "c"}); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	for _, c := range []struct{ name, write, key, optional, want string }{
		{"must-key", `mkdir /v/dir; echo "ONE='1'" > /v/dir/env`, "TWO", "false", `Failed: Error: environment variable key "TWO" not found in file "dir/env"`},
		{"must-file", `true`, "ONE", "false", `Failed: Error: couldn't load the environment file: opening "dir/env" of volume "v": no such file or directory`},
		{"broken", `mkdir /v/dir; echo "ONE=1" > /v/dir/env`, "ONE", "true", `Failed: Error: couldn't load the environment file: "dir/env" of volume "v": line 1: the value of ONE must stand in single quotes`},
		{"link", `mkdir /v/dir; ln -s /etc/hostname /v/dir/env`, "ONE", "true", `Failed: Error: couldn't load the environment file: opening "dir/env" of volume "v": too many levels of symbolic links`},
	} {
		s.create(c.name, spec(c.write, c.key, c.optional))
		s.until(c.name, "refused", func(p *v1.Pod) bool {
			w := container(p, "c").State.Waiting
			return w != nil && w.Reason == "CreateContainerConfigError"
		})
		s.event(c.name, c.want)
	}
}
