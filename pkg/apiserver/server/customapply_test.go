package server

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// TestApplyOfWhatASchemaDoesNotKnow has an applied configuration refused by the schema as it is merged, of custom kinds as of
// built-in ones and whatever the field validation; what the text says twice is a matter of field validation.
func TestApplyOfWhatASchemaDoesNotKnow(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.dynamic(t)
	define(t, c, "apply.example.com", "", `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{
		"spec":{"type":"object","properties":{"a":{"type":"string"},"list":{"type":"array","items":{"type":"object","properties":{"b":{"type":"string"}}}},
		"any":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}}}]`)
	const custom, builtIn = "/apis/apply.example.com/v1/crons/", "/api/v1/namespaces/default/configmaps/"
	const c1, m1 = `"apiVersion":"apply.example.com/v1","kind":"Cron"`, `"apiVersion":"v1","kind":"ConfigMap"`
	for i, test := range []struct {
		path, text string
		code       int
		message    string // "" = accepted
		strictly   bool   // only if validation is strict
	}{
		{custom, `{` + c1 + `,"spec":{"a":"x","any":{"thing":{"at":["all"]}}}}`, 201, "", false},
		{custom, `{` + c1 + `,"spec":{"typo":"x"}}`, 500, `failed to create typed patch object (/NAME; apply.example.com/v1, Kind=Cron): .spec.typo: field not declared in schema`, false},
		{custom, `{` + c1 + `,"spec":{"list":[{"b":"x","c":"y"}]}}`, 500, `failed to create typed patch object (/NAME; apply.example.com/v1, Kind=Cron): .spec.list[0].c: field not declared in schema`, false},
		{custom, `{` + c1 + `,"metadata":{"typo":"x"}}`, 500, `failed to create typed patch object (/NAME; apply.example.com/v1, Kind=Cron): .metadata.typo: field not declared in schema`, false},
		{custom, `{` + c1 + `,"status":{"typo":"x"}}`, 500, `failed to create typed patch object (/NAME; apply.example.com/v1, Kind=Cron): .status: field not declared in schema`, false},
		{custom, `{` + c1 + `,"spec":{"a":1}}`, 500, `failed to create typed patch object (/NAME; apply.example.com/v1, Kind=Cron): .spec.a: expected string, got &value.valueUnstructured{Value:1}`, false},
		{custom, "{" + c1 + `,"spec":{"a":"x","a":"y"}}`, 400, `error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:
  line 1: key "a" already set in map`, true},
		{custom, "{" + c1 + `,"spec":{"typo":"x","typo":"y"}}`, 500, `failed to create typed patch object (/NAME; apply.example.com/v1, Kind=Cron): .spec.typo: field not declared in schema`, false},
		{builtIn, `{` + m1 + `,"typo":"x"}`, 500, `failed to create typed patch object (/NAME; /v1, Kind=ConfigMap): .typo: field not declared in schema`, false},
		{builtIn, `{` + m1 + `,"data":{"a":"x","a":"y"}}`, 400, `error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:
  line 1: key "a" already set in map`, true},
	} {
		for _, validation := range []string{"", "Ignore", "Warn", "Strict"} {
			name := strings.ToLower(fmt.Sprintf("n%d%s", i, validation))
			text := strings.Replace(test.text, "{", `{"metadata":{"name":"`+name+`"},`, 1)
			if strings.Contains(test.text, `"metadata":{`) {
				text = strings.Replace(test.text, `"metadata":{`, `"metadata":{"name":"`+name+`",`, 1)
			}
			code, h, b := s.Try(t, "PATCH", test.path+name+"?fieldManager=m&fieldValidation="+validation, text, map[string]string{"Content-Type": string(types.ApplyYAMLPatchType)})
			var got metav1.Status
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			want, says := test.code, strings.Replace(test.message, "NAME", name, 1)
			if test.strictly && validation != "Strict" {
				want, says = 201, ""
				warned, expected := h.Values("Warning"), []string{`299 - "line 1: key \"a\" already set in map"`}
				if validation == "Ignore" {
					expected = nil
				}
				if !slices.Equal(warned, expected) {
					t.Errorf("%s with %q is warned of as %q", text, validation, warned)
				}
			}
			if code != want || got.Message != says || got.Reason != map[int]metav1.StatusReason{400: metav1.StatusReasonBadRequest}[code] {
				t.Errorf("%s with %q is answered %d %s %q, not %d %q", text, validation, code, got.Reason, got.Message, want, says)
			}
		}
	}
}

// TestManagersOfWhatFitsItsSchemaNoMore changes an object whose stored form its definition no longer knows: who manages what
// stays as it was, and the change is served. An applied configuration cannot be merged into it.
func TestManagersOfWhatFitsItsSchemaNoMore(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.dynamic(t)
	const version = `[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"n":{"type":%q},"m":{"type":"integer"}}}}}}}]`
	define(t, c, "misfit.example.com", "", fmt.Sprintf(version, "string"))
	crons := c.Resource(schema.GroupVersionResource{Group: "misfit.example.com", Version: "v1", Resource: "crons"})
	was, err := crons.Create(t.Context(), object(t, `{"apiVersion":"misfit.example.com/v1","kind":"Cron","metadata":{"name":"a"},"spec":{"n":"text"}}`), metav1.CreateOptions{FieldManager: "maker"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resource(definitionsGVR).Patch(t.Context(), "crons.misfit.example.com", types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/n/type","value":"integer"}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the new schema is in force", func() bool {
		_, err := crons.Create(t.Context(), object(t, `{"apiVersion":"misfit.example.com/v1","kind":"Cron","metadata":{"name":"b"},"spec":{"n":"text"}}`), metav1.CreateOptions{DryRun: []string{"All"}})
		return err != nil && strings.Contains(err.Error(), "must be of type integer")
	})
	now, err := crons.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"spec":{"m":1}}`), metav1.PatchOptions{FieldManager: "other"})
	if err != nil {
		t.Fatal(err) // the field that fits no more did not change
	}
	if spec(now, "m") != int64(1) || !reflect.DeepEqual(now.GetManagedFields(), was.GetManagedFields()) {
		t.Errorf("%v became %v", was.Object, now.Object)
	}
	_, err = crons.Patch(t.Context(), "a", types.ApplyPatchType, []byte(`{"apiVersion":"misfit.example.com/v1","kind":"Cron","metadata":{"name":"a"},"spec":{"m":2}}`), metav1.PatchOptions{FieldManager: "other"})
	if err == nil || !strings.Contains(err.Error(), "failed to create typed live object (/a; misfit.example.com/v1, Kind=Cron): .spec.n: expected numeric (int or float), got string") {
		t.Errorf("a configuration for it was answered %v", err)
	}
}

// TestPatchOfNoType refuses what is no patch before it looks at the rest of the request, in the words of either kind of kind.
func TestPatchOfNoType(t *testing.T) {
	t.Parallel()
	s := start(t)
	define(t, s.dynamic(t), "typeless.example.com", "", fmt.Sprintf(looseVersion, "", ""))
	const takes = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
	for path, want := range map[string]string{"/apis/typeless.example.com/v1/crons/none": takes, "/api/v1/namespaces/default/configmaps/none": "415: Unsupported Media Type"} {
		for _, typ := range []string{"", "application/json", "application/apply-patch+json", "text/plain; charset=utf-8", "no type; at=all;"} {
			code, _, b := s.Try(t, "PATCH", path+"?force=true&dryRun=never", `{}`, map[string]string{"Content-Type": typ})
			var got metav1.Status
			if err := json.Unmarshal(b, &got); err != nil || code != 415 || got.Message != want {
				t.Errorf("%s as %q: %d %s (%v)", path, typ, code, b, err)
			}
		}
	}
}
