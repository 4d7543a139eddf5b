package store

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

// TestSplice sets a resourceVersion without touching anything else, whatever the object holds.
func TestSplice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		obj := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Name:        rapid.String().Draw(t, "name"),
				Namespace:   rapid.String().Draw(t, "namespace"),
				UID:         "u",
				Generation:  rapid.Int64().Draw(t, "generation"),
				Labels:      rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "labels"),
				Finalizers:  rapid.SliceOf(rapid.String()).Draw(t, "finalizers"),
				Annotations: rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "annotations"),
			},
			Data: rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "data"),
		}
		obj.ResourceVersion = rapid.SampledFrom([]string{"", "7", "123456789"}).Draw(t, "old")
		raw, err := obj.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		out, err := WithRevision(raw, 4711)
		if err != nil {
			t.Fatal(err)
		}
		var got corev1.ConfigMap
		if err := got.Unmarshal(out); err != nil {
			t.Fatalf("the result cannot be read: %v", err)
		}
		if got.ResourceVersion != "4711" {
			t.Fatalf("the resourceVersion is %q", got.ResourceVersion)
		}
		back, err := WithRevision(out, 0)
		if err != nil {
			t.Fatal(err)
		}
		obj.ResourceVersion = ""
		// A message without the field may hold it as empty or not at all; both mean the same, so objects are compared.
		var plain corev1.ConfigMap
		if err := plain.Unmarshal(back); err != nil {
			t.Fatal(err)
		}
		want, _ := obj.Marshal()
		have, _ := plain.Marshal()
		if !bytes.Equal(want, have) {
			t.Fatalf("taking the resourceVersion off left\n%q, want\n%q", have, want)
		}
	})
}

// TestSpliceDamaged answers an error for a message that is cut, never a panic or a wrong object.
func TestSpliceDamaged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOf(rapid.Byte()).Draw(t, "raw")
		if out, err := WithRevision(raw, 1); err == nil {
			if _, _, _, err := Metadata(out); err != nil {
				t.Fatalf("%q became %q, which has no metadata", raw, out)
			}
		}
	})
}

// TestEnvelope opens what it wrapped.
func TestEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		api, kind := rapid.String().Draw(t, "apiVersion"), rapid.String().Draw(t, "kind")
		raw := rapid.SliceOf(rapid.Byte()).Draw(t, "raw")
		b := Wrap(api, kind, raw)
		if len(b) != WrapSize(api, kind, len(raw)) {
			t.Fatalf("the size is %d, was said to be %d", len(b), WrapSize(api, kind, len(raw)))
		}
		a, k, r, err := Unwrap(b)
		if err != nil || a != api || k != kind || !bytes.Equal(r, raw) {
			t.Fatalf("opened as %q %q %q %v", a, k, r, err)
		}
	})
}
