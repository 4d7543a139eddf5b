package autoscaler

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// scale is a target's, and where it is.
type scale struct {
	path   string
	object autoscalingv1.Scale
}

// resource finds the path segments of a kind that is served: "/apis/apps/v1" and "deployments".
func (c *controller) resource(apiVersion, kind string) (root, resource string, err error) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return "", "", fmt.Errorf("invalid API version in scale target reference: %w", err)
	}
	list, err := c.Client.Discovery().ServerResourcesForGroupVersion(gv.String())
	if err != nil {
		return "", "", fmt.Errorf("unable to determine resource for scale target reference: %w", err)
	}
	for _, r := range list.APIResources {
		if r.Kind == kind && !strings.Contains(r.Name, "/") {
			root = "/apis"
			if gv.Group == "" {
				root = "/api"
			}
			return path.Join(root, gv.String()), r.Name, nil
		}
	}
	return "", "", fmt.Errorf("unable to determine resource for scale target reference: no matches for kind %q in version %q", kind, apiVersion)
}

// scaleOf reads the scale of an object's target. It is read as JSON, whatever serves it.
func (c *controller) scaleOf(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) (*scale, error) {
	ref := h.Spec.ScaleTargetRef
	root, resource, err := c.resource(ref.APIVersion, ref.Kind)
	if err != nil {
		return nil, err
	}
	s := &scale{path: path.Join(root, "namespaces", h.Namespace, resource, ref.Name, "scale")}
	result := c.Client.CoreV1().RESTClient().Get().AbsPath(s.path).SetHeader("Accept", "application/json").Do(ctx)
	if err := result.Error(); err != nil { // in the server's words
		return nil, err
	}
	raw, err := result.Raw()
	if err != nil {
		return nil, err
	}
	return s, json.Unmarshal(raw, &s.object)
}

// rescale writes a new number; the version that was read is part of it, so that nobody else's change is undone.
func (c *controller) rescale(ctx context.Context, s *scale, n int32) error {
	next := s.object.DeepCopy()
	next.Spec.Replicas = n
	next.APIVersion, next.Kind = "autoscaling/v1", "Scale"
	body, err := json.Marshal(next)
	if err != nil {
		return err
	}
	return c.Client.CoreV1().RESTClient().Put().AbsPath(s.path).SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(body).Do(ctx).Error()
}

// get reads JSON from a path into out.
func (c *controller) get(ctx context.Context, at string, query map[string]string, out any) error {
	r := c.Client.CoreV1().RESTClient().Get().AbsPath(at).SetHeader("Accept", "application/json")
	for k, v := range query {
		if v != "" {
			r = r.Param(k, v)
		}
	}
	result := r.Do(ctx)
	if err := result.Error(); err != nil { // in the server's words
		return err
	}
	data, err := result.Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(data, out)
}
