package server

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

const (
	// peerFolder is where every server of a cluster has a key that vanishes when it stops to renew it, as upstream's have:
	// ours and theirs share one service.
	peerFolder = "masterleases/"
	// peerSeconds is how long one counts as there.
	peerSeconds = 15
)

// peers is the bootstrap.Peers in etcd.
type peers struct{ s *store.Store }

// Join says that a server is there.
func (p peers) Join(ctx context.Context, ip string) error {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: ip}, Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: ip}}}}}
	raw, err := e.Marshal()
	if err != nil {
		return err
	}
	if err := p.s.Put(ctx, peerFolder+ip, store.Wrap("v1", "Endpoints", raw), peerSeconds); err != nil {
		return fmt.Errorf("telling the other servers of this one: %w", err)
	}
	return nil
}

// Leave says that a server is not there any more.
func (p peers) Leave(ctx context.Context, ip string) error { return p.s.Drop(ctx, peerFolder+ip) }

// List answers the servers that are there.
func (p peers) List(ctx context.Context) ([]string, error) {
	page, err := p.s.List(ctx, peerFolder, "", 0, 0)
	if err != nil {
		return nil, fmt.Errorf("reading which servers are there: %w", err)
	}
	ips := make([]string, 0, len(page.KVs))
	for _, kv := range page.KVs {
		ips = append(ips, strings.TrimPrefix(kv.Key, peerFolder))
	}
	return ips, nil
}
