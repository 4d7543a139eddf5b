package codec

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestDecodeOptions: the options of a deletion are read in the core version, in none, and in that of what is deleted alone.
func TestDecodeOptions(t *testing.T) {
	gv := schema.GroupVersion{Group: "x.io", Version: "v2"}
	for version, taken := range map[string]bool{"v1": true, "": true, "apps/v1": true, "x.io/v2": true, "x.io/v1": false, "y.io/v2": false} {
		var o metav1.DeleteOptions
		err := DecodeOptions([]byte(`{"apiVersion":"`+version+`","kind":"DeleteOptions","propagationPolicy":"Orphan"}`), JSON, gv, &o)
		if (err == nil) != taken || taken && (o.PropagationPolicy == nil || *o.PropagationPolicy != metav1.DeletePropagationOrphan) {
			t.Errorf("as of %q they are %v, %v", version, o, err)
		}
	}
}
