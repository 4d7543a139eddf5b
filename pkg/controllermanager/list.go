package controllermanager

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"k8s.io/client-go/metadata"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/clusterrole"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/daemonset"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/deployment"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/disruption"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/endpoints"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/endpointslice"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/garbage"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/job"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/namespace"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/nodeipam"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/nodelifecycle"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/podgc"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/replicaset"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/resourcequota"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/rootca"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/serviceaccount"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/statefulset"
)

// All answers every controller that the configuration asks for.
func All(c *Config, d runtime.Deps, objects metadata.Interface) ([]*runtime.Controller, error) {
	list := []*runtime.Controller{
		deployment.New(d), replicaset.New(d), daemonset.New(d), statefulset.New(d), job.New(d), endpointslice.New(d), endpoints.New(d), disruption.New(d), clusterrole.New(d), resourcequota.New(d, objects), serviceaccount.New(d), namespace.New(d, objects), garbage.New(d, objects), podgc.New(d, c.TerminatedPods),
	}
	list = append(list, nodelifecycle.New(d, nodelifecycle.Config{Grace: c.NodeGrace, StartupGrace: c.NodeStartupGrace})...)
	if c.RootCAFile != "" {
		ca, err := os.ReadFile(c.RootCAFile)
		if err != nil {
			return nil, fmt.Errorf("reading --root-ca-file: %w", err)
		}
		list = append(list, rootca.New(d, string(ca)))
	}
	if c.AllocateNodeCIDRs {
		cidrs, bits, err := c.nodeRanges()
		if err != nil {
			return nil, err
		}
		list = append(list, nodeipam.New(d, cidrs, bits))
	}
	return slices.DeleteFunc(list, func(x *runtime.Controller) bool { return !wanted(c.Controllers, x.Name) }), nil
}

// wanted reads --controllers: "*" is all, "-name" leaves one out, a name puts one in.
func wanted(choice []string, name string) bool {
	short := strings.TrimSuffix(name, "-controller")
	all := false
	for _, c := range choice {
		switch c {
		case name, short:
			return true
		case "-" + name, "-" + short:
			return false
		case "*":
			all = true
		}
	}
	return all
}

// nodeRanges answers the cluster's CIDRs and how big each node's part of them is.
func (c *Config) nodeRanges() (cidrs []netip.Prefix, bits []int, err error) {
	for _, text := range strings.Split(c.ClusterCIDR, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, nil, fmt.Errorf("--cluster-cidr %q is not a CIDR: %w", text, err)
		}
		size := c.NodeMask
		if size == 0 && p.Addr().Is4() {
			size = c.NodeMask4
		} else if size == 0 {
			size = c.NodeMask6
		}
		if size < p.Bits() || size > p.Addr().BitLen() {
			return nil, nil, fmt.Errorf("--node-cidr-mask-size %d does not fit into %s", size, p)
		}
		cidrs, bits = append(cidrs, p.Masked()), append(bits, size)
	}
	return cidrs, bits, nil
}
