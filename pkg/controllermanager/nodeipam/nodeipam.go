// Package nodeipam gives every node its part of the pod network.
//
// A node without a range brings its key; Reconcile picks the first range that no node has and writes it on the node.
// What is taken is read from the nodes themselves each time, and one worker runs, so no range is given twice.
package nodeipam

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller; each node gets one range of bits[i] bits out of each cidrs[i], and none that overlaps services.
func New(d runtime.Deps, cidrs []netip.Prefix, bits []int, services []netip.Prefix) *runtime.Controller {
	nodes := d.Informers.Core().V1().Nodes()
	given := map[string]gift{} // what this process gave, by node: the cache may not show it yet
	return &runtime.Controller{
		Name: "node-ipam-controller", Account: "node-controller", Queue: "cidrallocator_node", For: "a part of the pod network for every node", Workers: 1,
		Watches: []runtime.Watch{{What: "nodes", Informer: nodes.Informer(), Keys: runtime.Self}},
		Writes:  []string{"nodes"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			node, err := nodes.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) {
				delete(given, key.Name)
				return 0, nil
			}
			if err != nil || len(node.Spec.PodCIDRs) > 0 {
				return 0, err
			}
			if g, ok := given[key.Name]; ok && g.to == node.UID {
				return 0, write(ctx, d, node, g.ranges)
			}
			all, err := nodes.Lister().List(labels.Everything())
			if err != nil {
				return 0, err
			}
			taken := map[netip.Prefix]bool{}
			for _, n := range all {
				for _, c := range n.Spec.PodCIDRs {
					if p, err := netip.ParsePrefix(c); err == nil {
						taken[p.Masked()] = true
					}
				}
			}
			for _, g := range given {
				for _, p := range g.ranges {
					taken[p] = true
				}
			}
			for _, p := range services {
				taken[p] = true
			}
			g := gift{to: node.UID}
			for i, cidr := range cidrs {
				p, ok := decide(cidr, bits[i], taken)
				if !ok {
					d.Event(node, runtime.Warning, "CIDRNotAvailable", fmt.Sprintf("Node %s status is now: CIDRNotAvailable", node.Name))
					return time.Minute, fmt.Errorf("%s has no free range of /%d left for node %s", cidr, bits[i], node.Name)
				}
				g.ranges = append(g.ranges, p)
			}
			given[key.Name] = g
			return 0, write(ctx, d, node, g.ranges)
		},
	}
}

// gift is what one node was given, in the order of the cluster's CIDRs.
type gift struct {
	to     types.UID
	ranges []netip.Prefix
}

func write(ctx context.Context, d runtime.Deps, node *corev1.Node, ranges []netip.Prefix) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": node.UID}, "spec": map[string]any{"podCIDR": ranges[0], "podCIDRs": ranges}})
	if err != nil {
		return err
	}
	_, err = d.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}
