package openapi

import (
	"strings"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilopenapi "k8s.io/kubectl/pkg/util/openapi"
	"k8s.io/kubectl/pkg/validation"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
)

// known is kubectl's reading of the v2 document.
type known struct{ utilopenapi.Resources }

func (k known) OpenAPISchema() (utilopenapi.Resources, error) { return k.Resources, nil }

// TestKubectlValidatesByV2 lets kubectl's own code judge objects by the document, as kubectls before 1.25 do.
func TestKubectlValidatesByV2(t *testing.T) {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	var doc openapiv2.Document
	if err := proto.Unmarshal(get(t, h, rootV2, oldProtoV2).Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	read, err := utilopenapi.NewOpenAPIData(&doc)
	if err != nil {
		t.Fatal(err)
	}
	judge := validation.NewSchemaValidation(known{read})
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}]}]}}`
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{`"image"`, `"imagee"`, `unknown field "imagee" in io.k8s.api.core.v1.Container`},
		{`"containers":[`, `"containers":[{"image":"x"},`, `missing required field "name" in io.k8s.api.core.v1.Container`},
		{`80`, `"eighty"`, `invalid type for io.k8s.api.core.v1.ContainerPort.containerPort: got "string", expected "integer"`},
	} {
		err := judge.ValidateBytes([]byte(strings.Replace(pod, c.old, c.new, 1)))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("with %s: %v, want %q", c.new, err, c.want)
		}
	}
	for _, kind := range []string{"Pod", "PodList", "DeleteOptions"} {
		if read.LookupResource(schema.GroupVersionKind{Version: "v1", Kind: kind}) == nil {
			t.Errorf("kubectl does not find %s", kind)
		}
	}
}
