package usage

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

func TestMeasureCountsEachFileOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr", filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	w := measure(dir)
	if w.bytes < 1<<20 || w.bytes > 1<<20+64<<10 || w.inodes != 3 {
		t.Errorf("%d bytes, %d inodes", w.bytes, w.inodes)
	}
}

func TestRate(t *testing.T) {
	r := New(Config{})
	at := time.Unix(100, 0)
	if r.rate("x", at, 1e9) != nil {
		t.Error("one look is no rate")
	}
	if n := r.rate("x", at.Add(2*time.Second), 2e9); n == nil || *n != 5e8 {
		t.Error(n)
	}
	if n := r.rate("x", at.Add(4*time.Second), 0); n != nil {
		t.Error("a counter which began anew has no rate yet:", *n)
	}
}

// shaky is containerd 1.6 while a sandbox ends: it has no list, and knows all others by name.
type shaky struct {
	runtimeapi.RuntimeServiceClient
}

func (shaky) ListPodSandboxStats(context.Context, *runtimeapi.ListPodSandboxStatsRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return nil, status.Error(codes.Unknown, "sandbox container is not in ready state")
}

func (shaky) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{{Id: "ends"}, {Id: "runs"}}}, nil
}

func (shaky) PodSandboxStats(_ context.Context, r *runtimeapi.PodSandboxStatsRequest, _ ...grpc.CallOption) (*runtimeapi.PodSandboxStatsResponse, error) {
	if r.PodSandboxId == "ends" {
		return nil, status.Error(codes.Unknown, "it is not in ready state")
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: &runtimeapi.PodSandboxStats{Attributes: &runtimeapi.PodSandboxAttributes{Id: "runs", Metadata: &runtimeapi.PodSandboxMetadata{Uid: "u"}}}}, nil
}

func TestOneSandboxThatEndsHidesNoOther(t *testing.T) {
	all, err := New(Config{CRI: &cri.Client{RuntimeServiceClient: shaky{}}}).sandboxes(context.Background())
	if err != nil || len(all) != 1 || all["u"] == nil {
		t.Errorf("%v, %v", all, err)
	}
}
