// Package cri talks to the container runtime of the node.
//
// Flow: Dial opens one gRPC connection to the runtime (and a second when images are served elsewhere);
// Watcher turns container events, and a slow relist beneath them, into "look at this pod again".
// Client may be used from any goroutine. Watcher.Run owns its goroutines and returns after all of them.
package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/metrics"
)

// Labels and annotations which every kubelet writes on sandboxes and containers.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	AnnotationHash          = "io.kubernetes.container.hash"
	AnnotationRestartCount  = "io.kubernetes.container.restartCount"
	AnnotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	AnnotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationGrace         = "io.kubernetes.pod.terminationGracePeriod"
)

// maxMessage bounds one answer of the runtime, bytes.
const maxMessage = 16 << 20

// Client is the runtime's two services behind one handle.
type Client struct {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient
	// Metrics is told of every call; it is set before the first, or nil.
	Metrics *metrics.Set

	conns []*grpc.ClientConn
}

// Dial connects to a unix socket ("unix:///run/containerd/containerd.sock" or a bare path). The connection is made
// lazily and again after the runtime restarts; image may be empty when the runtime serves its own images.
func Dial(runtime, image string) (*Client, error) {
	c := &Client{}
	conn, err := c.dial(runtime)
	if err != nil {
		return nil, err
	}
	c.RuntimeServiceClient, c.ImageServiceClient = runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
	c.conns = []*grpc.ClientConn{conn}
	if image != "" && image != runtime {
		ic, err := c.dial(image)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		c.ImageServiceClient = runtimeapi.NewImageServiceClient(ic)
		c.conns = append(c.conns, ic)
	}
	return c, nil
}

func (c *Client) dial(endpoint string) (*grpc.ClientConn, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("container runtime endpoint %q: only unix sockets are supported, for example unix:///run/containerd/containerd.sock", endpoint)
	}
	return grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithUnaryInterceptor(c.counted),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
}

// Close ends the connections.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// IsNotFound tells whether the runtime does not know the sandbox, container or image asked for.
func IsNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// Text is an error as the runtime worded it, as events and statuses show it.
func Text(err error) string {
	if s, ok := status.FromError(err); ok {
		return fmt.Sprintf("rpc error: code = %s desc = %s", s.Code(), s.Message())
	}
	return err.Error()
}
