package connect

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/proxy"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

var (
	servicesGR = schema.GroupResource{Resource: "services"}
	slicesGR   = schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}
)

// split reads "[scheme:]name[:port]", as proxied objects are named.
func split(id string) (scheme, name, port string, ok bool) {
	parts := strings.Split(id, ":")
	switch len(parts) {
	case 1:
		return "", parts[0], "", true
	case 2:
		return "", parts[0], parts[1], true
	case 3:
		return parts[0], parts[1], parts[2], parts[0] == "http" || parts[0] == "https" || parts[0] == ""
	}
	return "", "", "", false
}

// NodeProxy serves nodes/proxy: a port of the node, its kubelet's if none is named.
func (s *Streams) NodeProxy(c *kind.ConnectRequest) {
	scheme, name, port, ok := split(c.Op.Name)
	if !ok {
		s.c.WriteError(c.Writer, c.HTTP, apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", c.Op.Name)))
		return
	}
	host, _, err := s.host(c, name)
	if err != nil {
		s.c.WriteError(c.Writer, c.HTTP, err)
		return
	}
	address, kubeletPort, _ := net.SplitHostPort(host)
	t := s.workloads
	switch {
	case port == "" || port == kubeletPort:
		port, t = kubeletPort, s.node
		scheme = "https"
	case scheme == "":
		scheme = "http"
	}
	if a, err := netip.ParseAddr(address); err == nil && !proxyable(a) {
		s.c.WriteError(c.Writer, c.HTTP, apierrors.NewBadRequest(errAddress.Error()))
		return
	}
	s.proxy(c, &url.URL{Scheme: scheme, Host: net.JoinHostPort(address, port)}, t)
}

// PodProxy serves pods/proxy: a port of the pod, the first it names if none is said.
func (s *Streams) PodProxy(c *kind.ConnectRequest) {
	scheme, name, port, ok := split(c.Op.Name)
	if !ok {
		s.c.WriteError(c.Writer, c.HTTP, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", c.Op.Name)))
		return
	}
	obj, err := c.Op.Env.GetFresh(c.Op.Ctx, podsGR, c.Op.Namespace, name)
	if err != nil {
		s.c.WriteError(c.Writer, c.HTTP, err)
		return
	}
	p := obj.(*corev1.Pod)
	if port == "" {
		for _, ct := range p.Spec.Containers {
			if port == "" && len(ct.Ports) > 0 {
				port = strconv.Itoa(int(ct.Ports[0].ContainerPort))
			}
		}
	}
	s.toWorkload(c, scheme, p.Status.PodIP, port)
}

// ServiceProxy serves services/proxy: a ready endpoint of one of the service's ports.
func (s *Streams) ServiceProxy(c *kind.ConnectRequest) {
	scheme, name, port, ok := split(c.Op.Name)
	if !ok {
		s.c.WriteError(c.Writer, c.HTTP, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", c.Op.Name)))
		return
	}
	ip, number, err := s.endpoint(c, name, port)
	if err != nil {
		s.c.WriteError(c.Writer, c.HTTP, err)
		return
	}
	s.toWorkload(c, scheme, ip, number)
}

func (s *Streams) endpoint(c *kind.ConnectRequest, name, port string) (ip, number string, err error) {
	obj, err := c.Op.Env.GetFresh(c.Op.Ctx, servicesGR, c.Op.Namespace, name)
	if err != nil {
		return "", "", err
	}
	// A port is asked for by its name or number; slices know it by name.
	portName, found := "", false
	for _, p := range obj.(*corev1.Service).Spec.Ports {
		if p.Name == port || port == strconv.Itoa(int(p.Port)) || port == "" && len(obj.(*corev1.Service).Spec.Ports) == 1 {
			portName, found = p.Name, true
		}
	}
	unavailable := apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", c.Op.Name))
	if !found {
		return "", "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", port, name))
	}
	objs, err := c.Op.Env.ListFresh(c.Op.Ctx, slicesGR, c.Op.Namespace)
	if err != nil {
		return "", "", err
	}
	var ips, numbers []string
	for _, o := range objs {
		slice := o.(*discoveryv1.EndpointSlice)
		if slice.Labels[discoveryv1.LabelServiceName] != name {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name == nil || *p.Name != portName || p.Port == nil {
				continue
			}
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready == nil || *e.Conditions.Ready {
					ips, numbers = append(ips, e.Addresses[0]), append(numbers, strconv.Itoa(int(*p.Port)))
				}
			}
		}
	}
	if len(ips) == 0 {
		return "", "", unavailable
	}
	n := rand.IntN(len(ips))
	return ips[n], numbers[n], nil
}

// toWorkload proxies to an address that a pod claimed: never to this machine or to what only this machine can reach.
func (s *Streams) toWorkload(c *kind.ConnectRequest, scheme, ip, port string) {
	a, err := netip.ParseAddr(ip)
	switch {
	case ip == "":
		err = apierrors.NewServiceUnavailable("address not allowed: the pod has no address yet")
	case err != nil || !proxyable(a):
		err = apierrors.NewBadRequest(errAddress.Error())
	}
	if err != nil {
		s.c.WriteError(c.Writer, c.HTTP, err)
		return
	}
	if scheme == "" {
		scheme = "http"
	}
	host := ip
	if port != "" {
		host = net.JoinHostPort(ip, port)
	}
	s.proxy(c, &url.URL{Scheme: scheme, Host: host}, s.workloads)
}

func (s *Streams) proxy(c *kind.ConnectRequest, u *url.URL, t http.RoundTripper) {
	// No path at all is no path to the other side either: a GET of it is sent on to the same with a slash behind it, so that
	// what a page names beside itself is found.
	if c.Path != "" {
		u.Path = path.Join("/", c.Path)
	}
	if strings.HasSuffix(c.Path, "/") && u.Path != "/" {
		u.Path += "/"
	}
	u.RawQuery = c.HTTP.URL.RawQuery
	h := proxy.NewUpgradeAwareHandler(u, t, false, false, responder{s, c})
	h.UseLocationHost = true
	// What names the user to this server is nobody else's business.
	c.HTTP.Header.Del("Authorization")
	h.ServeHTTP(c.Writer, c.HTTP)
}
