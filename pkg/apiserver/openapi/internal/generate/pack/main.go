//go:build openapipack

// Command pack is the second half of generate: it is compiled with the generated GetOpenAPIDefinitions and writes what
// that answers to the file named by its argument.
//
// A line of the file is one model, four columns with tabs between: its name, the names of the models it refers to
// (commas between), its OpenAPI v2 form and its v3 form as JSON. The lines are sorted and the file is gzipped.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	admissionv1beta1 "k8s.io/api/admission/v1beta1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	builderutil "k8s.io/kube-openapi/pkg/builder3/util"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/schemamutation"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const kindsExtension = "x-kubernetes-group-version-kind"

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out string) error {
	kinds, err := kinds()
	if err != nil {
		return err
	}
	v2s := GetOpenAPIDefinitions(func(name string) spec.Ref { return spec.MustCreateRef("#/definitions/" + name) })
	v3s := GetOpenAPIDefinitions(func(name string) spec.Ref { return spec.MustCreateRef("#/components/schemas/" + name) })
	var text bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(v3s)) {
		v2, v3 := v2s[name].Schema, v3s[name].Schema
		if s, ok := v2.Extensions[common.ExtensionV2Schema].(spec.Schema); ok {
			v2 = s
		}
		delete(v3.Extensions, common.ExtensionV2Schema)
		for _, s := range []*spec.Schema{&v2, &v3} {
			if gvks := kinds[name]; gvks != nil {
				s.AddExtension(kindsExtension, gvks)
			}
		}
		j2, err := json.Marshal(withoutDefaults(&v2))
		if err != nil {
			return err
		}
		j3, err := json.Marshal(builderutil.WrapRefs(&v3))
		if err != nil {
			return err
		}
		refs := slices.Compact(slices.Sorted(slices.Values(v3s[name].Dependencies)))
		fmt.Fprintf(&text, "%s\t%s\t%s\t%s\n", name, strings.Join(refs, ","), j2, j3)
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(text.Bytes()); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(out, packed.Bytes(), 0o644)
}

// withoutDefaults is the schema as v2 shows it: clients of v2 took defaults for values to send.
func withoutDefaults(s *spec.Schema) *spec.Schema {
	w := schemamutation.Walker{RefCallback: schemamutation.RefCallbackNoop, SchemaCallback: func(s *spec.Schema) *spec.Schema {
		if s.Default == nil {
			return s
		}
		c := *s
		c.Default = nil
		return &c
	}}
	return w.WalkSchema(s)
}

// kinds are the groups, versions and kinds that each model stands for.
func kinds() (map[string][]map[string]any, error) {
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, admissionv1.AddToScheme, admissionv1beta1.AddToScheme, imagepolicyv1alpha1.AddToScheme,
		apiextensionsv1.AddToScheme, apiextensionsv1beta1.AddToScheme, apiregistrationv1.AddToScheme, apiregistrationv1beta1.AddToScheme,
	} {
		if err := add(all); err != nil {
			return nil, err
		}
	}
	byName := map[string][]schema.GroupVersionKind{}
	for gvk, t := range all.AllKnownTypes() {
		if n, ok := reflect.Zero(t).Interface().(interface{ OpenAPIModelName() string }); ok && gvk.Version != runtime.APIVersionInternal {
			byName[n.OpenAPIModelName()] = append(byName[n.OpenAPIModelName()], gvk)
		}
	}
	out := map[string][]map[string]any{}
	for name, gvks := range byName {
		slices.SortFunc(gvks, func(a, b schema.GroupVersionKind) int {
			return strings.Compare(a.Group+"\x00"+a.Version+"\x00"+a.Kind, b.Group+"\x00"+b.Version+"\x00"+b.Kind)
		})
		for _, g := range gvks {
			out[name] = append(out[name], map[string]any{"group": g.Group, "version": g.Version, "kind": g.Kind})
		}
	}
	return out, nil
}
