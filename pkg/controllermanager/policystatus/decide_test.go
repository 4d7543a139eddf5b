package policystatus

import (
	"fmt"
	"os"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// shop is the group version of testdata/shop.yaml.
var shop = schema.GroupVersion{Group: "shop", Version: "v1"}

// shopSchemas are its schemas as the apiserver tells them.
func shopSchemas(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/shop.yaml")
	if err == nil {
		text, err = yaml.YAMLToJSON(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func shopMapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"Widget", "Gadget", "Anything", "Settings"} {
		m.Add(shop.WithKind(kind), meta.RESTScopeNamespace)
	}
	return m
}

// snapshot is what gather would answer of the shop.
func snapshot(p *admissionregistrationv1.ValidatingAdmissionPolicy, doc document) Snapshot {
	s := Snapshot{Policy: p}
	for _, k := range kinds(shopMapper(), resources(p)) {
		if doc.root(k) != "" {
			s.Kinds = append(s.Kinds, Kind{k, doc})
		}
	}
	if k := p.Spec.ParamKind; k != nil {
		s.Params = &Kind{schema.FromAPIVersionAndKind(k.APIVersion, k.Kind), doc}
	}
	return s
}

func TestDecide(t *testing.T) {
	text := shopSchemas(t)
	doc, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		for _, p := range golden.Objects[admissionregistrationv1.ValidatingAdmissionPolicy](t, files["policy.yaml"]) {
			plan, err := decide(snapshot(p, doc))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s: %s", p.Name, plan)
			if plan != nil {
				same(t, text, p, plan)
			}
		}
		return b.String()
	})
}
