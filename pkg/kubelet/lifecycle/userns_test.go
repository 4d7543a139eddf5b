package lifecycle

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

// able is a runtime with handlers.
type able struct {
	runtimeapi.RuntimeServiceClient
	handlers []*runtimeapi.RuntimeHandler
}

func (a able) Status(context.Context, *runtimeapi.StatusRequest, ...grpc.CallOption) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{RuntimeHandlers: a.handlers}, nil
}

// TestOwnUsersNeedTheRuntime: a runtime that cannot map users would run the pod with the node's.
func TestOwnUsersNeedTheRuntime(t *testing.T) {
	can := &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: true}
	some := []*runtimeapi.RuntimeHandler{{Features: can}, {Name: "able", Features: can}, {Name: "unable", Features: &runtimeapi.RuntimeHandlerFeatures{}}, {Name: "silent"}}
	yes, no := true, false
	for _, c := range []struct {
		name     string
		users    *bool
		handlers []*runtimeapi.RuntimeHandler
		handler  string
		want     string
	}{
		{"unsaid", nil, nil, "", ""},
		{"the node's", &yes, nil, "", ""},
		{"the default can", &no, some, "", ""},
		{"a handler can", &no, some, "able", ""},
		{"an old runtime", &no, nil, "", "can't set `spec.hostUsers: false`, runtime does not support user namespaces"},
		{"a handler cannot", &no, some, "unable", "can't set `spec.hostUsers: false`, RuntimeClass handler \"unable\" does not support user namespaces"},
		{"a handler says nothing", &no, some, "silent", "can't set `spec.hostUsers: false`, RuntimeClass handler \"silent\" does not support user namespaces"},
		{"nobody", &no, some, "nobody", "can't set `spec.hostUsers: false`, RuntimeClass handler \"nobody\" does not support user namespaces"},
	} {
		m := &Manager{cfg: Config{CRI: &cri.Client{RuntimeServiceClient: able{handlers: c.handlers}}}}
		got := ""
		if err := m.ownUsers(t.Context(), &v1.Pod{Spec: v1.PodSpec{HostUsers: c.users}}, c.handler); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
