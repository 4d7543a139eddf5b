package proxy

import (
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clients ask the API for what the proxy watches. They know the kinds of three groups and no others: client-go's typed clients bring every
// kind there is, which is a third of the program, and 7 MB of pages that every start touches.
type clients struct {
	core, discovery, networking rest.Interface
}

// newClients makes the clients, over one pool of connections; nothing is sent yet.
func newClients(config *rest.Config) (*clients, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(v1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme), networkingv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	pool, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	out := &clients{}
	for _, group := range []struct {
		of   schema.GroupVersion
		path string
		to   *rest.Interface
	}{
		{v1.SchemeGroupVersion, "/api", &out.core},
		{discoveryv1.SchemeGroupVersion, "/apis", &out.discovery},
		{networkingv1.SchemeGroupVersion, "/apis", &out.networking},
	} {
		c := *config
		c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &group.of, group.path, codecs
		if *group.to, err = rest.RESTClientForConfigAndClient(&c, pool); err != nil {
			return nil, fmt.Errorf("make a client for %s: %w", group.of, err)
		}
	}
	return out, nil
}

// client reads the kubeconfig for protobuf without a rate limit.
func (c *Config) client() (*rest.Config, error) {
	var rc *rest.Config
	var err error
	if c.Kubeconfig == "" && c.Master == "" {
		if rc, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("no cluster to talk to: give --kubeconfig")
		}
	} else if rc, err = clientcmd.BuildConfigFromFlags(c.Master, c.Kubeconfig); err != nil {
		err = fmt.Errorf("read --kubeconfig %s: %w", c.Kubeconfig, err)
	}
	if err != nil {
		return nil, err
	}
	rc.QPS, rc.Burst = -1, -1
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	rc.UserAgent = "sextant-proxy"
	return rc, nil
}
