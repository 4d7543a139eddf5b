package disruption

import (
	"context"
	"encoding/json"
	"fmt"
	"path"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// scaled asks an owner of any kind how many pods it wants, as its scale subresource says.
func (c *controller) scaled(ctx context.Context, namespace string, ref *metav1.OwnerReference) Owner {
	out := Owner{UID: ref.UID}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		out.Unknown = err.Error()
		return out
	}
	list, err := c.Client.Discovery().ServerResourcesForGroupVersion(gv.String())
	if err != nil {
		out.Unknown = fmt.Sprintf("no matches for kind %q in version %q", ref.Kind, ref.APIVersion)
		return out
	}
	resource, scales := "", map[string]bool{}
	for _, r := range list.APIResources {
		if r.Kind == ref.Kind && path.Base(r.Name) == r.Name {
			resource = r.Name
		}
		scales[r.Name] = true
	}
	switch {
	case resource == "":
		out.Unknown = fmt.Sprintf("no matches for kind %q in version %q", ref.Kind, ref.APIVersion)
		return out
	case !scales[resource+"/scale"]:
		out.Unknown = fmt.Sprintf("%s does not implement the scale subresource", gv.WithResource(resource).GroupResource())
		return out
	}
	root := "/apis"
	if gv.Group == "" {
		root = "/api"
	}
	raw, err := c.Client.CoreV1().RESTClient().Get().AbsPath(path.Join(root, gv.String(), "namespaces", namespace, resource, ref.Name, "scale")).SetHeader("Accept", "application/json").DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return out // it is gone: nothing is to be of it
	}
	var scale autoscalingv1.Scale
	if err == nil {
		err = json.Unmarshal(raw, &scale)
	}
	if err != nil {
		out.Unknown = err.Error()
		return out
	}
	if scale.UID == ref.UID {
		out.Scale = scale.Spec.Replicas
	}
	return out
}
