package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// largestPage bounds what an address of static pods may answer, bytes.
const largestPage = 10 << 20

// page reads the static pods of one address again and again: a Pod, or a PodList. While it cannot be read, or is broken,
// its last good pods run on.
type page struct {
	url, node string
	header    http.Header
	every     time.Duration
	log       *slog.Logger
	set       func(map[types.UID]*v1.Pod)
	// broken tells of an answer which holds no pods that can run.
	broken func(message string)

	client *http.Client
	last   map[string]*v1.Pod
	said   string
}

func (p *page) run(ctx context.Context) {
	// A redirect would take the headers, which may be credentials, to somebody else.
	p.client = &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for ctx.Err() == nil {
		pods, err := p.read(ctx)
		switch {
		case err == nil:
			p.said = ""
			p.set(pods)
		case ctx.Err() == nil && p.said != err.Error():
			p.said = err.Error()
			p.log.Error("reading static pods", "url", p.url, "err", err)
			p.broken(fmt.Sprintf("static pods of %s are broken: %v", p.url, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(p.every):
		}
	}
}

func (p *page) read(ctx context.Context) (map[types.UID]*v1.Pod, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header = p.header.Clone()
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(io.LimitReader(resp.Body, largestPage+1))
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, errors.New(resp.Status)
	case len(raw) > largestPage:
		return nil, fmt.Errorf("more than %d bytes are too large for pods", largestPage)
	case len(raw) == 0:
		return nil, errors.New("zero-length data received")
	}
	return p.pods(raw)
}

// pods reads one answer; all of it is good or none.
func (p *page) pods(raw []byte) (map[types.UID]*v1.Pod, error) {
	var list struct {
		metav1.TypeMeta `json:",inline"`
		Items           []runtime.RawExtension `json:"items"`
	}
	if err := yaml.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	parts := [][]byte{raw}
	many := list.Kind == "PodList" || list.Kind == "List"
	if many {
		parts = nil
		for _, item := range list.Items {
			parts = append(parts, item.Raw)
		}
	}
	out, now := map[types.UID]*v1.Pod{}, map[string]*v1.Pod{}
	for _, part := range parts {
		pod := &v1.Pod{}
		if err := yaml.Unmarshal(part, pod); err != nil {
			return nil, err
		}
		if many && pod.Kind == "" {
			pod.Kind, pod.APIVersion = "Pod", "v1"
		}
		if err := alone(pod); err != nil {
			return nil, err
		}
		// By its content alone: an address may answer the same pods in another order or form.
		content, err := json.Marshal(pod)
		if err != nil {
			return nil, err
		}
		name := pod.Namespace + "/" + pod.Name
		finish(pod, "http", p.node, content, p.url, p.last[name])
		if now[name] != nil || out[pod.UID] != nil {
			return nil, fmt.Errorf("two pods are named %s or have uid %s", name, pod.UID)
		}
		now[name], out[pod.UID] = pod, pod
	}
	p.last = now
	return out, nil
}
